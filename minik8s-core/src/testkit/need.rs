//! What a test needs of its machine. A test that cannot run says why; where `MINIK8S_REQUIRE_ALL=1` is set (as in CI),
//! a missing need is a failure instead of a skip.

use std::path::{Path, PathBuf};

/// Something a test may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// User id 0.
    Root,
    /// A program on the search path.
    Program(&'static str),
    /// A kubectl of version 1.32 or newer.
    Kubectl,
    /// The etcd server.
    Etcd,
}

impl Need {
    /// Why the need is not met, and `None` where it is.
    pub fn missing(self) -> Option<String> {
        match self {
            Need::Root => (!is_root()).then(|| "needs root".to_owned()),
            Need::Kubectl => super::kubectl::find().is_none().then(|| "needs kubectl 1.32 or newer".to_owned()),
            Need::Etcd => Need::Program("etcd").missing(),
            Need::Program(name) => find_program(name).is_none().then(|| format!("needs the program {name}")),
        }
    }
}

/// True where every need is met. Otherwise prints why the test is skipped, or panics where skips are not allowed.
///
/// # Panics
/// Where something is missing and `MINIK8S_REQUIRE_ALL=1`.
#[allow(clippy::print_stderr, reason = "a skipped test must say why")]
pub fn met(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|n| n.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let why = missing.join(", ");
    assert!(std::env::var_os("MINIK8S_REQUIRE_ALL").is_none_or(|v| v != "1"), "must not skip here: {why}");
    eprintln!("skipped: {why}");
    false
}

/// The program's path, looked up in `PATH` and the system's administration directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|m| m.uid() == 0)
}
