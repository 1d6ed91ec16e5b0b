//! `echo` and a real client.

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::time::Duration;

use fulmar_tests::built::Kind;

use crate::web::{connect, with_guest};

#[test]
fn what_is_sent_comes_back() {
    with_guest("what_is_sent_comes_back", "echo", &[], |kind, _| {
        let bytes = if kind == Kind::Hvt { 20_000 } else { 1_000_000 };
        let content: Vec<u8> = (0..bytes).map(|index: u32| index.to_le_bytes()[0] ^ index.to_le_bytes()[1]).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut stream = connect("10.0.0.2:7");
                    let mut sender = stream.try_clone().unwrap();
                    scope.spawn({
                        let content = &content;
                        move || {
                            sender.write_all(content).unwrap();
                            sender.shutdown(Shutdown::Write).unwrap();
                        }
                    });
                    let mut back = Vec::new();
                    stream.read_to_end(&mut back).unwrap();
                    assert!(back == content, "{} bytes of {}", back.len(), content.len());
                });
            }
        });
        let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        socket.connect("10.0.0.2:7").unwrap();
        for len in [1, 500, 1472] {
            socket.send(&content[..len]).unwrap();
            let mut back = [0; 2000];
            let came = socket.recv(&mut back).unwrap();
            assert_eq!(back[..came], content[..len]);
        }
    });
}
