//! Which graphics processors a machine has.

use std::path::Path;

/// The numbers of the graphics processors whose devices are in this directory, which is `/dev` but in tests: `nvidia0`,
/// `nvidia1`. Where there is no driver, there are none.
pub fn discover(devices: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(devices).into_iter().flatten().flatten();
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix("nvidia")?.parse::<u32>().ok();
    let mut numbers: Vec<u32> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers.iter().map(u32::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_with_numbers_are_graphics_processors() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["nvidia10", "nvidia0", "nvidia-uvm", "nvidiactl", "null", "nvidia2"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(discover(dir.path()), ["0", "2", "10"]);
        assert!(discover(&dir.path().join("none")).is_empty());
    }
}
