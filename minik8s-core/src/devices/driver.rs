//! The driver's own libraries and programs, for machines whose driver says nothing itself of what containers need: what the
//! linker's cache names, as whoever starts a program here would find it.

use super::grant::{Grant, LIBRARY_PATH, aliases};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where they are in containers: the place that images of the vendor look in.
const LIBRARIES: &str = "/usr/local/nvidia/lib64";
const PROGRAMS: &str = "/usr/local/nvidia/bin";
/// What the linker knows.
const CACHE: &str = "/etc/ld.so.cache";
/// Where programs are.
const BIN: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/lib/wsl/lib"];

/// Libraries of a version of the driver, which must be that of the kernel's part: no image can bring them.
const OF_DRIVER: [&str; 15] = [
    "libcuda",
    "libcudadebugger",
    "libnvidia-ml",
    "libnvidia-cfg",
    "libnvidia-ptxjitcompiler",
    "libnvidia-nvvm",
    "libnvidia-nvvm70",
    "libnvidia-gpucomp",
    "libnvidia-allocator",
    "libnvidia-opencl",
    "libnvidia-encode",
    "libnvidia-opticalflow",
    "libnvidia-rtcore",
    "libnvcuvid",
    "libnvoptix",
];
const TOOLS: [&str; 4] = ["nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server"];

/// Where a driver's files are.
pub(super) enum Place {
    /// Where the machine's own programs find them.
    Machine,
    /// In `lib` and `bin` below a directory.
    Below(PathBuf),
}

impl Place {
    /// Adds what a container needs to use the driver.
    pub(super) fn add_to(&self, grant: &mut Grant) {
        let libraries = self.libraries();
        for path in &libraries {
            let Ok(source) = std::fs::canonicalize(path) else { continue };
            let names = [path, &source].into_iter().filter_map(|path| path.file_name()).map(PathBuf::from);
            for name in names.chain(aliases(path)) {
                grant.add_mount(&source, &Path::new(LIBRARIES).join(name));
            }
        }
        if !libraries.is_empty() {
            grant.add_path(LIBRARY_PATH, LIBRARIES);
        }
        let programs = self.programs();
        for (name, path) in &programs {
            grant.add_mount(path, &Path::new(PROGRAMS).join(name));
        }
        if !programs.is_empty() {
            grant.add_path("PATH", PROGRAMS);
        }
    }

    fn libraries(&self) -> Vec<PathBuf> {
        let found: Vec<PathBuf> = match self {
            Self::Below(directory) => {
                let entries = std::fs::read_dir(directory.join("lib")).into_iter().flatten().flatten();
                entries.map(|entry| entry.path()).filter(|path| is_of_driver(path)).collect()
            }
            Self::Machine => {
                let cache = std::fs::read(CACHE).unwrap_or_default();
                let kind = machine_of(Path::new("/proc/self/exe"));
                cached(&cache).into_iter().filter(|path| kind.is_some() && machine_of(path) == kind).collect()
            }
        };
        let mut found = found;
        found.sort();
        found.dedup();
        found
    }

    fn programs(&self) -> Vec<(&'static str, PathBuf)> {
        let places: Vec<PathBuf> = match self {
            Self::Below(directory) => vec![directory.join("bin")],
            Self::Machine => BIN.map(PathBuf::from).to_vec(),
        };
        let find = |name: &&'static str| {
            let path = places.iter().map(|place| place.join(name)).find(|path| path.is_file())?;
            Some((*name, path))
        };
        TOOLS.iter().filter_map(find).collect()
    }
}

fn is_of_driver(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split_once(".so").is_some_and(|(stem, _)| OF_DRIVER.contains(&stem))
}

/// Libraries of the driver that the linker's cache names. Of its format, only this is relied on: paths stand in it as texts
/// that end with a zero byte.
fn cached(cache: &[u8]) -> Vec<PathBuf> {
    let texts = cache.split(|byte| *byte == 0).filter(|text| text.starts_with(b"/"));
    texts
        .filter_map(|text| std::str::from_utf8(text).ok())
        .map(PathBuf::from)
        .filter(|path| is_of_driver(path))
        .collect()
}

/// For what machine a program or library was made: its word size and processor. A machine may have libraries for others.
fn machine_of(path: &Path) -> Option<(u8, [u8; 2])> {
    let mut head = [0; 20];
    File::open(path).ok()?.read_exact(&mut head).ok()?;
    head.starts_with(b"\x7fELF").then_some((head[4], [head[18], head[19]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_cache_is_read_for_libraries_of_the_driver() {
        let cache = b"glibc-ld.so.cache1.1\x02\x00\x00\x00\x01libcuda.so.1\0/usr/lib/x86_64-linux-gnu/libcuda.so.1\0\
            libc.so.6\0/lib/x86_64-linux-gnu/libc.so.6\0/usr/lib/i386-linux-gnu/libnvidia-ml.so.1\0/x/libcudart.so.12\0/\xff.so\0";
        let found = cached(cache);
        let names: Vec<&str> = found.iter().filter_map(|path| path.to_str()).collect();
        assert_eq!(names, ["/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib/i386-linux-gnu/libnvidia-ml.so.1"]);
    }

    #[test]
    fn the_cache_of_this_machine_is_in_the_form_that_is_relied_on() {
        let Ok(cache) = std::fs::read(CACHE) else { return };
        let texts = cache.split(|byte| *byte == 0).filter(|text| text.starts_with(b"/"));
        let own = machine_of(Path::new("/proc/self/exe"));
        let paths = texts.filter_map(|text| std::str::from_utf8(text).ok()).map(PathBuf::from);
        let libraries = paths.filter(|path| own.is_some() && machine_of(path) == own).count();
        assert!(libraries > 0, "no library of this machine is named in {CACHE}");
    }

    #[test]
    fn files_below_a_directory_come_by_all_their_names_and_with_paths_to_them() {
        let dir = tempfile::tempdir().unwrap();
        for place in ["lib", "bin"] {
            std::fs::create_dir(dir.path().join(place)).unwrap();
        }
        for name in ["lib/libcuda.so.550.1", "lib/libc.so.6", "bin/nvidia-smi", "bin/sh"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("libcuda.so.550.1", dir.path().join("lib/libcuda.so.1")).unwrap();
        let mut grant = Grant::default();
        Place::Below(dir.path().to_owned()).add_to(&mut grant);
        let mut targets: Vec<&str> = grant.mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect();
        targets.sort_unstable();
        let want = [
            "/usr/local/nvidia/bin/nvidia-smi",
            "/usr/local/nvidia/lib64/libcuda.so.1",
            "/usr/local/nvidia/lib64/libcuda.so.550.1",
        ];
        assert_eq!(targets, want);
        let paths: Vec<(&str, &str)> = grant.paths.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
        assert_eq!(paths, [(LIBRARY_PATH, LIBRARIES), ("PATH", PROGRAMS)]);
        let mut nothing = Grant::default();
        Place::Below(dir.path().join("none")).add_to(&mut nothing);
        assert_eq!(nothing, Grant::default());
    }
}
