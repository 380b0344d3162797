//! An image from local parts, so that tests and demonstrations need no registry.

#[cfg(feature = "testkit")]
mod registry;

#[cfg(feature = "testkit")]
pub use registry::Registry;

use crate::images::{BuildError, ImageBuilder};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the image that [`busybox_image`] builds.
pub const TEST_IMAGE: &str = "localhost/minik8s-test:latest";

const BUSYBOX: &str = "/bin/busybox";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:1000:\nlog:x:2000:app\nnogroup:x:65534:\n";

/// Writes an archive of [`TEST_IMAGE`] into `dir`: the machine's static busybox with all its applets, three users
/// (`root`, `app` 1000, `nobody`) and a few groups. It runs `sh` where nothing else is asked for.
///
/// # Errors
/// Where `/bin/busybox` is missing or not static (Debian: `apt-get install busybox-static`).
pub fn busybox_image(dir: impl AsRef<Path>) -> Result<PathBuf, BuildError> {
    let path = dir.as_ref().join("minik8s-test.tar");
    busybox_builder(TEST_IMAGE)?.write(&path)?;
    Ok(path)
}

/// The same as a builder under another name, to be added to.
///
/// # Errors
/// As [`busybox_image`].
pub fn busybox_builder(name: &str) -> Result<ImageBuilder, BuildError> {
    let failed = |source| BuildError::Io { operation: "using static busybox", path: BUSYBOX.into(), source };
    let program = std::fs::read(BUSYBOX).map_err(failed)?;
    if is_dynamic(&program) {
        return Err(failed(io::Error::other("it is not static; apt-get install busybox-static")));
    }
    let listed = Command::new(BUSYBOX).arg("--list").output().map_err(failed)?;
    let applets = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut image = ImageBuilder::new(name)
        .file("/bin/busybox", program, 0o755)
        .file("/etc/passwd", PASSWD, 0o644)
        .file("/etc/group", GROUP, 0o644)
        .directory("/tmp", 0o1777)
        .directory("/root", 0o700)
        .directory("/home/app", 0o755)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .cmd(["sh"]);
    for applet in applets.lines().filter(|a| *a != "busybox" && !a.contains('/')) {
        image = image.symlink(Path::new("/bin").join(applet), "busybox");
    }
    Ok(image)
}

/// True where an ELF program asks for an interpreter (program header type 3).
fn is_dynamic(elf: &[u8]) -> bool {
    let number = |at: usize, length: usize| {
        let bytes = elf.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0usize, |n, b| n << 8 | usize::from(*b)))
    };
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else { return false };
    (0..count).any(|n| number(table + n * size, 4) == Some(3))
}
