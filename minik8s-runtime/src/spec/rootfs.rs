//! Reading an image's account files from its layers, without mounting them. An image is not trusted: symbolic links
//! stay inside its layer, and nothing but regular files is opened.

use containerd_client::types::Mount;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Nobody has that many users.
const MAX: u64 = 1 << 20;

/// `/etc/passwd` and `/etc/group` of an image; empty where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

/// Reads them from below the mounts of a snapshot made on top of the image. Blocking.
pub(crate) fn read_accounts(mounts: &[Mount]) -> Accounts {
    let layers = layers(mounts);
    Accounts { passwd: read(&layers, "etc/passwd"), group: read(&layers, "etc/group") }
}

/// Directories of the layers, the top one first.
fn layers(mounts: &[Mount]) -> Vec<&Path> {
    let Some(mount) = mounts.first() else { return Vec::new() };
    let lower = mount.options.iter().find_map(|o| o.strip_prefix("lowerdir="));
    lower.map_or_else(|| vec![Path::new(&mount.source)], |l| l.split(':').map(Path::new).collect())
}

fn read(layers: &[&Path], name: &str) -> String {
    for layer in layers {
        match find(layer, name) {
            Found::File(text) => return text,
            Found::Removed => break,
            Found::Nothing => {}
        }
    }
    String::new()
}

enum Found {
    File(String),
    /// A whiteout: layers below do not count.
    Removed,
    Nothing,
}

fn find(layer: &Path, name: &str) -> Found {
    let Ok(handle) = look_up(layer, name) else { return Found::Nothing };
    let Ok(meta) = fstat(&handle) else { return Found::Nothing };
    match SFlag::from_bits_truncate(meta.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFCHR => Found::Removed,
        SFlag::S_IFREG => {
            let mut bytes = Vec::new();
            let file = File::open(format!("/proc/self/fd/{}", handle.as_raw_fd()));
            let _ = file.and_then(|f| f.take(MAX).read_to_end(&mut bytes));
            Found::File(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => Found::Nothing,
    }
}

fn look_up(layer: &Path, name: &str) -> nix::Result<OwnedFd> {
    let root = open(layer, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    openat2(&root, name, how)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn overlay(layers: &[&Path]) -> Vec<Mount> {
        let lower = layers.iter().map(|l| l.display().to_string()).collect::<Vec<_>>().join(":");
        let options = vec!["workdir=/w".into(), "upperdir=/u".into(), format!("lowerdir={lower}")];
        vec![Mount { r#type: "overlay".into(), source: "overlay".into(), options, ..Mount::default() }]
    }

    #[test]
    fn the_top_layer_wins_and_lower_ones_fill_in() {
        let dir = tempfile::tempdir().expect("dir");
        let (top, bottom) = (dir.path().join("top"), dir.path().join("bottom"));
        for (layer, name, text) in [(&top, "passwd", "new"), (&bottom, "passwd", "old"), (&bottom, "group", "g")] {
            fs::create_dir_all(layer.join("etc")).expect("mkdir");
            fs::write(layer.join("etc").join(name), text).expect("write");
        }
        let accounts = read_accounts(&overlay(&[&top, &bottom]));
        assert_eq!(accounts, Accounts { passwd: "new".into(), group: "g".into() });
    }

    #[test]
    fn links_do_not_leave_the_layer_and_pipes_do_not_block() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("secret"), "secret").expect("write");
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("etc")).expect("mkdir");
        symlink("../../secret", layer.join("etc/passwd")).expect("link");
        nix::unistd::mkfifo(&layer.join("etc/group"), Mode::S_IRWXU).expect("fifo");
        assert_eq!(read_accounts(&overlay(&[&layer])), Accounts::default());
        symlink(dir.path().join("secret"), layer.join("etc/abs")).expect("link");
        assert!(matches!(find(&layer, "etc/abs"), Found::Nothing));
    }
}
