//! Graphics processors of a machine, as its driver shows them: device nodes with a number, and those that all of them need;
//! and what else of the driver a container needs.

use super::driver::Place;
use super::{Devices, Grant, cdi};
use crate::runtime::DeviceNode;
use std::path::{Path, PathBuf};

/// What pods ask for.
pub const GPU: &str = "nvidia.com/gpu";
/// Where drivers put device nodes.
const DEV: &str = "/dev";
/// Where drivers say what containers need for their devices.
const SPECIFICATIONS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Device nodes that every program with a graphics processor needs, where they are.
const SHARED: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// A machine's graphics processors, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus {
    directory: PathBuf,
    /// Their numbers: `0`, `1`.
    pub numbers: Vec<String>,
    /// Which is whose, for all who hand them out on this machine.
    pub table: Devices,
}

impl Gpus {
    /// Those whose device nodes are in this directory, which is `/dev` but in tests, where the driver's libraries and programs
    /// are in `lib` and `bin` below it, and specifications of devices in `cdi`. Where there is no driver, there are none.
    pub fn discover(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let numbers = numbers(&directory);
        let table = match is_machines(&directory) {
            true => Devices::new(if numbers.is_empty() { PathBuf::new() } else { of_machine() }),
            false => Devices::new(directory.join(".held")),
        };
        Self { directory, numbers, table }
    }

    /// What a container gets that is given these: what the driver says that it needs, or else the device nodes, and the
    /// libraries and programs that belong to the driver. Read anew each time: drivers are updated while agents run.
    pub fn grant(&self, numbers: &[String]) -> Grant {
        let (specifications, place) = match is_machines(&self.directory) {
            true => (SPECIFICATIONS.map(PathBuf::from).to_vec(), Place::Machine),
            false => (vec![self.directory.join("cdi")], Place::Below(self.directory.clone())),
        };
        let said = cdi::read(&specifications, GPU).iter().find_map(|spec| spec.grant(numbers));
        said.unwrap_or_else(|| {
            let mut grant = Grant { devices: self.nodes(numbers), ..Grant::default() };
            place.add_to(&mut grant);
            grant
        })
    }

    fn nodes(&self, numbers: &[String]) -> Vec<DeviceNode> {
        let own = numbers.iter().map(|number| format!("nvidia{number}"));
        let shared = SHARED.iter().filter(|name| self.directory.join(name).exists()).map(ToString::to_string);
        let node = |name: String| DeviceNode { path: Path::new(DEV).join(&name), host: self.directory.join(name) };
        own.chain(shared).map(node).collect()
    }
}

fn is_machines(directory: &Path) -> bool {
    directory == Path::new(DEV)
}

/// A place that all processes of this machine share and that does not outlive it.
fn of_machine() -> PathBuf {
    let usual = Path::new("/run/minik8s");
    match std::fs::create_dir_all(usual) {
        Ok(()) => usual.join("devices"),
        Err(_) => std::env::temp_dir().join("minik8s-devices"),
    }
}

/// The numbers of device nodes `nvidia0`, `nvidia1` in a directory.
fn numbers(devices: &Path) -> Vec<String> {
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
    fn only_device_nodes_with_numbers_are_graphics_processors() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["nvidia10", "nvidia0", "nvidia-uvm", "nvidiactl", "null", "nvidia2"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let gpus = Gpus::discover(dir.path());
        assert_eq!(gpus.numbers, ["0", "2", "10"]);
        let nodes = gpus.nodes(&["2".to_owned()]);
        let inside: Vec<&str> = nodes.iter().filter_map(|node| node.path.to_str()).collect();
        assert_eq!(inside, ["/dev/nvidia2", "/dev/nvidiactl", "/dev/nvidia-uvm"]);
        assert_eq!(nodes[0].host, dir.path().join("nvidia2"));
        assert!(Gpus::discover(dir.path().join("none")).numbers.is_empty());
    }

    #[test]
    fn what_the_driver_says_comes_before_what_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidia1", "nvidiactl"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("cdi")).unwrap();
        let spec = r#"{"kind": "nvidia.com/gpu", "devices": [{"name": "1", "containerEdits": {"env": ["SAID=1"]}}]}"#;
        std::fs::write(dir.path().join("cdi/nvidia.json"), spec).unwrap();
        let gpus = Gpus::discover(dir.path());
        let of = |numbers: &[&str]| gpus.grant(&numbers.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!((of(&["1"]).env.len(), of(&["1"]).devices.len()), (1, 0));
        // Of both, it does not say what they need.
        assert_eq!((of(&["0", "1"]).env.len(), of(&["0", "1"]).devices.len()), (0, 3));
    }
}
