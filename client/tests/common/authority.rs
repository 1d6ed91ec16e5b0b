//! A CA in a folder, and the programs for certificates run inside the test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fulmar_client::program::{Surroundings, run};

use super::{Folder, Ran};

/// A program of the library.
pub(crate) type Program = fn(Vec<OsString>, Surroundings<'_>) -> u8;

pub(crate) fn ca(words: Vec<OsString>, surroundings: Surroundings<'_>) -> u8 {
    run::<fulmar_client::ca::CommandLine>(words, surroundings)
}

pub(crate) fn request(words: Vec<OsString>, surroundings: Surroundings<'_>) -> u8 {
    run::<fulmar_client::request::CommandLine>(words, surroundings)
}

pub(crate) fn bistro(words: Vec<OsString>, surroundings: Surroundings<'_>) -> u8 {
    run::<fulmar_client::remote::bistro::CommandLine>(words, surroundings)
}

pub(crate) fn remote(words: Vec<OsString>, surroundings: Surroundings<'_>) -> u8 {
    run::<fulmar_client::remote::stored::CommandLine>(words, surroundings)
}

/// Runs a program at a time, in seconds since 1970.
pub(crate) fn run_at(program: Program, now_unix_s: i64, words: &[&str]) -> Ran {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let arguments = ["program"].iter().chain(words).map(OsString::from).collect();
    let surroundings = Surroundings {
        time_out: Duration::from_secs(20),
        now_unix_ms: now_unix_s * 1000,
        end_with_reader: false,
        out: &mut out,
        errors: &mut errors,
    };
    let code = program(arguments, surroundings);
    Ran { code, out: String::from_utf8(out).unwrap(), errors: String::from_utf8(errors).unwrap() }
}

/// The present, in seconds since 1970: handshakes go by it.
pub(crate) fn present() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A folder with a CA, whose programs run at a time.
pub(crate) struct Authority {
    pub(crate) folder: Folder,
    pub(crate) now_unix_s: i64,
}

impl Authority {
    /// A new CA.
    pub(crate) fn new(now_unix_s: i64) -> Self {
        let authority = Self { folder: Folder::new(), now_unix_s };
        authority.done(ca, &["generate", "--folder", authority.text("").as_str()]);
        authority
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.0.join(file)
    }

    /// The path of a file, for a command line.
    pub(crate) fn text(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    pub(crate) fn run(&self, program: Program, words: &[&str]) -> Ran {
        run_at(program, self.now_unix_s, words)
    }

    /// Runs it, and it must succeed.
    pub(crate) fn done(&self, program: Program, words: &[&str]) -> String {
        let ran = self.run(program, words);
        assert_eq!(ran.code, 0, "{words:?}: {}{}", ran.out, ran.errors);
        ran.out
    }

    /// Makes a request `LABEL.req` with `LABEL.key`.
    pub(crate) fn request(&self, label: &str, words: &[&str]) {
        let (file, key) = (self.text(&format!("{label}.req")), self.text(&format!("{label}.key")));
        self.done(request, &[&["--request", &file, "--key", &key], words].concat());
    }

    /// Signs `LABEL.req` by the CA, or by the holder of `by.pem`.
    pub(crate) fn sign(&self, label: &str, by: Option<&str>) -> String {
        let (file, folder) = (self.text(&format!("{label}.req")), self.text(""));
        let by = by.map(|by| self.text(&format!("{by}.pem")));
        let mut words = vec!["sign", file.as_str(), "--yes", "--folder", folder.as_str()];
        words.extend(by.iter().flat_map(|by| ["--cert", by.as_str()]));
        self.done(ca, &words)
    }

    /// A delegation `LABEL.pem` with `LABEL.key`.
    pub(crate) fn delegate(&self, label: &str, by: Option<&str>) {
        self.request(label, &["add-policy", label, "4", "--mem", "256", "--cpu", "0"]);
        self.sign(label, by);
    }
}

/// A copy of one of the peer's files.
pub(crate) fn peers(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/tls").join(file)
}
