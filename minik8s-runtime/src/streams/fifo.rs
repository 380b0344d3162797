//! FIFOs on disk.

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Makes `stdin`, `stdout` and `stderr` below `dir`, anew where they are there.
pub(super) fn make_fifos(dir: &Path) -> io::Result<[PathBuf; 3]> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir)?;
    let paths = ["stdin", "stdout", "stderr"].map(|name| dir.join(name));
    for path in &paths {
        mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    }
    Ok(paths)
}

/// Opens for writing; fails where nobody reads.
pub(super) fn open_nonblocking(path: &Path) -> io::Result<File> {
    File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
}
