//! The smallest proof that decode and encode belong together; the recorded messages are checked in `tests/`.

use super::*;
use crate::name::Name;

const INFO: &[u8] =
    b"\x30\x1f\x30\x15\x02\x01\x05\x04\x08\0\0\0\0\0\0\0\0\x0c\x06:hello\xa0\x06\xa3\x04\xb3\x02\x05\x00";

fn header() -> Header {
    Header::new(7, Name::parse("foo:web").unwrap())
}

#[test]
fn a_message_comes_back() {
    let message = decode(Frame::whole(INFO)).unwrap();
    assert_eq!(message.payload, Payload::Command(Command::Unikernel(UnikernelCommand::Info)));
    assert_eq!(message.header, Header::new(0, Name::parse("hello").unwrap()));
    assert_eq!(encode(&message, &mut [0; 64]).unwrap(), INFO);
    assert_eq!(encode(&message, &mut [0; 32]), Err(Full));
    let mut buffer = [0; 64];
    let frame = encode_frame(&message, &mut buffer).unwrap();
    assert_eq!(frame.split_first_chunk().unwrap(), (&[0, 0, 0, 33], INFO));
    assert_eq!(peek_header(INFO.get(..25).unwrap()), Some(message.header));
}

#[test]
fn sets_are_written_in_order() {
    let cpuids = [128, 3, 0, -1];
    let policy = Policy {
        cpuids: List::Items(&cpuids),
        unikernels: 1,
        memory: 64,
        block: None,
        bridges: List::Items(&["br1", "b", "br0"]),
    };
    let mut buffer = [0; 128];
    let decoded = Policy::decode(policy.encode(&mut buffer).unwrap()).unwrap();
    assert!(decoded.cpuids.iter().eq([-1, 0, 3, 128]));
    assert!(decoded.bridges.iter().eq(["b", "br0", "br1"]));
}

#[test]
fn an_image_can_be_sent_from_elsewhere() {
    let mut buffer = [0; 128];
    let head = encode_image_head(&header(), true, 5, &mut buffer).unwrap();
    let mut frame = [0; 128];
    frame.get_mut(..head.len()).unwrap().copy_from_slice(head);
    frame.get_mut(head.len()..head.len() + 5).unwrap().copy_from_slice(b"image");
    let whole = frame.get(4..head.len() + 5).unwrap();
    let message = decode(Frame::whole(whole)).unwrap();
    let success = |image| Payload::Success(Success::Image { compressed: true, image });
    assert_eq!(message.payload, success(Image::Inline(b"image")));
    let cut = Cut { at: head.len() - 4, len: 5 };
    let message = decode(Frame { head: head.get(4..).unwrap(), cut: Some(cut) }).unwrap();
    assert_eq!(message.payload, success(Image::Diverted { len: 5 }));
    assert_eq!(encode(&message, &mut [0; 128]), Err(Full));
}

#[test]
fn lists_from_iterators_are_lists() {
    let names = [Name::parse("b").unwrap(), Name::parse("a").unwrap()];
    let mut buffer = [0; 128];
    let frame = encode_consoles(&header(), names, &mut buffer).unwrap();
    let message = decode(Frame::whole(frame.get(4..).unwrap())).unwrap();
    assert_eq!(message.payload, Payload::Success(Success::Consoles(List::Items(&names))));
}

#[test]
fn the_version_is_read_first() {
    let mut other = [0; 10];
    other.copy_from_slice(b"\x30\x08\x30\x06\x02\x01\x06\xff\xff\xff");
    assert_eq!(decode(Frame::whole(&other)).unwrap_err().reason, Reason::Version(6));
    assert_eq!(peek_header(&other), None);
}
