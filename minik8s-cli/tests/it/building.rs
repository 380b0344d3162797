//! Functions whose requirements are installed while they are built, on real containers and without any network: the
//! packages are wheels beside the code.

use super::functions::{code, get};
use super::harness::{Kind, Up, until, until_or};
use minik8s_core::testkit::need::{self, Need};

/// Makes a wheel: name, version, text of the module, where to.
const WHEEL: &str = "import sys, zipfile
name, version, text, to = sys.argv[1:5]
info = f'{name}-{version}.dist-info'
with zipfile.ZipFile(f'{to}/{name}-{version}-py3-none-any.whl', 'w') as wheel:
    files = {
        f'{name}/__init__.py': text,
        f'{info}/METADATA': f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n',
        f'{info}/WHEEL': 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n',
    }
    for path, content in files.items():
        wheel.writestr(path, content)
    wheel.writestr(f'{info}/RECORD', ''.join(f'{path},,\\n' for path in [*files, f'{info}/RECORD']))
";

const GREETS: &str = "import greet
def main(p):
    return greet.hello(p['who'])
";

/// A directory with a function that greets, its requirements, and the wheel that has them.
fn greets(up: &Up, directory: &str, says: &str, requirements: &str) -> String {
    let files = code(up, directory, GREETS);
    let (wheels, script) = (format!("{files}/wheels"), up.files().join("wheel.py"));
    std::fs::create_dir_all(&wheels).expect("a directory");
    std::fs::write(&script, WHEEL).expect("a file");
    std::fs::write(format!("{files}/requirements.txt"), requirements).expect("a file");
    let text = format!("def hello(who):\n    return '{says} ' + who\n");
    up.program("python3", &[&script.display().to_string(), "greet", "1.0", &text, &wheels]).ok();
    files
}

fn pods(up: &Up) -> String {
    up.minik8s(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name} {.items[*].status.phase}"]).out
}

#[test]
fn requirements_are_installed_in_a_pod_and_what_fails_is_told_with_its_log() {
    if !need::met(&[Need::Program("python3")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    let Some(base) = up.python_base() else { return };
    up.minik8s(&["function", "base", "python", "-f", &base.display().to_string()]).ok();
    let local = "--no-index\n--find-links wheels\ngreet==1.0\n";
    let files = greets(&up, "greets", "hello", local);
    up.minik8s(&["function", "create", "greets", "-f", &files, "--min", "1"]).ok();
    let greeted = || up.minik8s(&["invoke", "greets", "-d", r#"{"who": "you"}"#]).ok().trim().to_owned();
    assert_eq!(greeted(), "\"hello you\"");
    let installs = || up.minik8s(&["get", "pods", "-l", "minik8s.io/installs-for", "-o", "name"]).ok();
    until_or(120, || installs().is_empty(), || format!("what has installed is gone: {}", pods(&up)));

    // What does not exist: told with what pip says, and what was there before goes on.
    let bad = greets(&up, "bad", "never", "--no-index\n--find-links wheels\nno-such-package==1\n");
    let told = up.minik8s(&["function", "update", "greets", "-f", &bad]).refused();
    assert!(told.contains("requirements cannot be installed") && told.contains("no-such-package"), "{told}");
    let log = up.minik8s(&["get", "function", "greets", "-o", "jsonpath={.status.log}"]).ok();
    assert!(log.contains("No matching distribution found for no-such-package"), "{log}");
    until_or(120, || installs().is_empty(), || format!("what has failed is gone, too: {}", pods(&up)));
    assert_eq!(greeted(), "\"hello you\"");

    let other = greets(&up, "other", "good day", local);
    up.minik8s(&["function", "update", "greets", "-f", &other]).ok();
    assert_eq!(greeted(), "\"good day you\"");
    up.minik8s(&["function", "delete", "greets"]).ok();
    until("nothing is left", 180, || pods(&up).trim().is_empty());
}

#[test]
fn a_base_is_brought_from_a_registry_by_its_name() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let Some(archive) = up.python_base() else { return };
    let files = code(&up, "says", "def main(p):\n    return 'well'\n");
    let said = up.files().join("said");
    let mut early = up.minik8s_into(&["function", "create", "early", "-f", &files], &said);
    let told = || get(&up, "function/early", "{.status.conditions[0].message}");
    until_or(120, || told().contains("minik8s function base base/python:latest"), told);

    let place = up.registry(archive, "library/python", None);
    let from = |name: &str| up.minik8s(&["function", "base", "python", "--from", &format!("{place}/{name}")]);
    let wrong = from("library/python:v2").refused();
    assert!(wrong.contains("library/python:v2") && wrong.contains("not found"), "{wrong}");
    assert!(up.minik8s(&["function", "base", "python"]).refused().contains("--from"));
    from("library/python:v1").ok();
    // What is there is not sent again.
    assert!(!from("library/python:v1").err.contains("sha256:"));
    // Who waited for it goes on.
    assert!(early.wait().is_ok_and(|status| status.success()), "{}", std::fs::read_to_string(&said).expect("a file"));
    assert_eq!(up.minik8s(&["invoke", "early"]).ok().trim(), "\"well\"");
    up.minik8s(&["function", "delete", "early"]).ok();
    until("nothing is left", 180, || pods(&up).trim().is_empty());
}
