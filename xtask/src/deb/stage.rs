//! The tree that a package is packed from: which file lies where.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{MAINTAINER, glibc};
use crate::steps::{Done, Failure, root};

/// What root runs. The tender lies beside `vmmd`, which looks for it there.
const DAEMONS: [&str; 8] =
    ["vmmd", "vmmd_console", "vmmd_stats", "vmmd_log", "vmmd_tls", "vmmd_tls_inetd", "vmmd_influx", "fulmar-tender"];

/// What everybody runs.
const CLIENTS: [&str; 5] = ["vmmc_local", "vmmc_remote", "vmmc_bistro", "vmmp_ca", "vmmp_request"];

/// What the package is asked to do when it comes and goes.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// A tree.
pub(super) struct Stage {
    tree: PathBuf,
}

impl Stage {
    pub(super) fn new(tree: &Path) -> Self {
        Self { tree: tree.to_owned() }
    }

    /// Puts everything there.
    pub(super) fn fill(&self, programs: &Path, pages: &Path, version: &str) -> Done {
        let packaging = root().join("packaging");
        for (folder, names) in [("usr/sbin", &DAEMONS[..]), ("usr/bin", &CLIENTS[..])] {
            for name in names {
                self.copy(&programs.join(name), &format!("{folder}/{name}"), 0o755)?;
            }
        }
        self.copy_all(&packaging.join("systemd"), "usr/lib/systemd/system")?;
        self.copy(&packaging.join("sysusers.conf"), "usr/lib/sysusers.d/fulmar.conf", 0o644)?;
        self.copy(&packaging.join("tmpfiles.conf"), "usr/lib/tmpfiles.d/fulmar.conf", 0o644)?;
        let settings = self.copy_all(&packaging.join("etc"), "etc/fulmar")?;
        for section in ["man1", "man5", "man8"] {
            for page in files(&pages.join("man").join(section))? {
                self.compress(&page, &format!("usr/share/man/{section}/{}.gz", name_of(&page)))?;
            }
        }
        self.copy_all(&pages.join("bash"), "usr/share/bash-completion/completions")?;
        self.copy_all(&pages.join("zsh"), "usr/share/zsh/vendor-completions")?;
        self.copy_all(&pages.join("fish"), "usr/share/fish/vendor_completions.d")?;
        self.copy(&packaging.join("grafana-dashboard.json"), "usr/share/fulmar/grafana-dashboard.json", 0o644)?;
        self.copy_all(&root().join("docs"), "usr/share/doc/fulmar")?;
        self.copy(&root().join("LICENSE"), "usr/share/doc/fulmar/copyright", 0o644)?;
        self.compress(&root().join("CHANGELOG.md"), "usr/share/doc/fulmar/changelog.gz")?;
        let bytes = bytes_in(&self.tree)?;
        self.write_control(&packaging.join("debian"), programs, version, bytes)?;
        let conffiles: String = settings.iter().map(|file| format!("/{file}\n")).collect();
        self.write("DEBIAN/conffiles", conffiles.as_bytes(), 0o644)
    }

    fn write_control(&self, debian: &Path, programs: &Path, version: &str, bytes: u64) -> Done {
        let mut needed = (0, 0);
        for name in DAEMONS.iter().chain(&CLIENTS) {
            needed = needed.max(glibc(&programs.join(name))?);
        }
        let mut control = String::from_utf8_lossy(&read(&debian.join("control"))?).into_owned();
        for (place, value) in [
            ("@VERSION@", version.to_owned()),
            ("@MAINTAINER@", MAINTAINER.to_owned()),
            ("@SIZE@", bytes.div_ceil(1024).to_string()),
            ("@GLIBC@", format!("{}.{}", needed.0, needed.1)),
        ] {
            control = control.replace(place, &value);
        }
        self.write("DEBIAN/control", control.as_bytes(), 0o644)?;
        for script in SCRIPTS {
            self.copy(&debian.join(script), &format!("DEBIAN/{script}"), 0o755)?;
        }
        Ok(())
    }

    /// Copies the files of a folder; where they lie.
    fn copy_all(&self, from: &Path, to: &str) -> Done<Vec<String>> {
        let mut places = Vec::new();
        for file in files(from)? {
            let place = format!("{to}/{}", name_of(&file));
            self.copy(&file, &place, 0o644)?;
            places.push(place);
        }
        Ok(places)
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> Done {
        self.write(to, &read(from)?, mode)
    }

    /// Neither a time nor a name goes with it.
    fn compress(&self, from: &Path, to: &str) -> Done {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let packed = encoder.write_all(&read(from)?).and_then(|()| encoder.finish());
        self.write(to, &packed.map_err(|error| failed(from, &error))?, 0o644)
    }

    fn write(&self, to: &str, content: &[u8], mode: u32) -> Done {
        let path = self.tree.join(to);
        let put = |path: &Path| -> std::io::Result<()> {
            let mut folder = self.tree.clone();
            for part in Path::new(to).parent().into_iter().flat_map(Path::components) {
                folder.push(part);
                fs::create_dir_all(&folder)?;
                // Whatever the umask of who packs it.
                fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
            }
            fs::set_permissions(&self.tree, Permissions::from_mode(0o755))?;
            fs::write(path, content)?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        };
        put(&path).map_err(|error| failed(&path, &error))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure(format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Done<Vec<u8>> {
    fs::read(path).map_err(|error| failed(path, &error))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is directly in a folder, in an order.
fn files(folder: &Path) -> Done<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| failed(folder, &error))?;
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    files.sort();
    Ok(files)
}

/// The bytes of all files below a folder.
fn bytes_in(folder: &Path) -> Done<u64> {
    let mut bytes = 0;
    for path in files(folder)? {
        bytes += if path.is_dir() { bytes_in(&path)? } else { read(&path)?.len() as u64 };
    }
    Ok(bytes)
}
