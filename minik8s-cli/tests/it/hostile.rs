//! What people send by mistake or on purpose: contained, told, and nobody beside it notices.

use super::functions::{call, code, get, of_instances, ready, with_function};
use super::harness::{Kind, Up, until, until_or};
use minik8s_core::testkit::need::{self, Need};

const GOOD: &str = "def main(p):\n    return p\n";
const HOG: &str = "kept = []
def main(p):
    if p.get('how') == 'hog':
        while True: kept.append(bytearray(16 << 20))
    return 'well'
";

/// Writes archives that nobody should unpack: one whose file leads out, one with a link that does, one that is a thousand
/// times as large as it looks.
const ARCHIVES: &str = "import io, sys, tarfile
def add(tar, name, data=b'', kind=tarfile.REGTYPE, link=''):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    tar.addfile(info, io.BytesIO(data))
to = sys.argv[1]
with tarfile.open(f'{to}/out.tar', 'w') as tar:
    add(tar, 'main.py', b'def main(p): return p')
    add(tar, '../../../../etc/owned', b'x')
with tarfile.open(f'{to}/link.tar', 'w') as tar:
    add(tar, 'main.py', b'def main(p): return p')
    add(tar, 'away', kind=tarfile.SYMTYPE, link='/etc')
    add(tar, 'away/owned', b'x')
with tarfile.open(f'{to}/bomb.tar.gz', 'w:gz', compresslevel=9) as tar:
    add(tar, 'main.py', b'def main(p): return p')
    for index in range(64): add(tar, f'zeros{index}', bytes(16 << 20))
open(f'{to}/none.tar', 'wb').write(b'this is no archive at all' * 100)
";

#[test]
fn hostile_files_and_calls_are_contained_and_told_and_others_go_on() {
    if !need::met(&[Need::Program("python3"), Need::Program("curl")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    if !with_function(&up, "good", GOOD, &["--min", "1"]) {
        return;
    }
    ready(&up, "good");
    let good = || call(&up, "/function/default/good", r#"{"n": 1}"#);
    assert_eq!(good(), (200, r#"{"n": 1}"#.to_owned()));
    let uid = || of_instances(&up, "good", "metadata.uid");
    let before = uid();
    assert!(!before.is_empty(), "it has an instance");
    bad_archives(&up);
    bad_names(&up);
    bad_bodies(&up);
    // Who uses more memory than it may is ended, told, and started again.
    up.minik8s(&["function", "create", "hog", "-f", &code(&up, "hog", HOG), "--min", "1", "--max", "1"]).ok();
    ready(&up, "hog");
    let hog = |data: &str| call(&up, "/function/default/hog", data).0;
    assert_eq!(hog("{}"), 200);
    assert_eq!(hog(r#"{"how": "hog"}"#), 502, "whether it was made is not known, and it is not made again");
    let state = || get(&up, "pods", "{.items[*].status.containerStatuses[0].lastState}");
    until_or(120, || state().contains("OOMKilled"), || format!("it is told why: {}", state()));
    until("it answers again", 180, || hog("{}") == 200);
    assert_eq!((good(), uid()), ((200, r#"{"n": 1}"#.to_owned()), before), "nobody beside it noticed");
    assert!(!std::path::Path::new("/etc/owned").exists());
}

fn bad_archives(up: &Up) {
    let (script, to) = (up.files().join("archives.py"), up.files().join("archives"));
    std::fs::create_dir_all(&to).expect("a directory");
    std::fs::write(&script, ARCHIVES).expect("a file");
    up.program("python3", &[&script.display().to_string(), &to.display().to_string()]).ok();
    let table =
        [("out.tar", "leads out"), ("link.tar", "away"), ("bomb.tar.gz", "grows to more"), ("none.tar", "archive")];
    for (file, word) in table {
        let name = file.split('.').next().unwrap_or_default();
        let files = to.join(file).display().to_string();
        let told = up.minik8s(&["function", "create", name, "-f", &files]).refused();
        assert!(told.contains(word), "{file}: {told}");
        let status = get(up, &format!("function/{name}"), "{.status.conditions[0].status}");
        assert_ne!(status, "True", "{file}");
        assert_eq!(call(up, &format!("/function/default/{name}"), "{}").0 / 100, 5, "{file} was never built");
        up.minik8s(&["function", "delete", name]).ok();
    }
}

fn bad_names(up: &Up) {
    let files = code(up, "other", "def main(p):\n    return 'other'\n");
    let told = up.minik8s(&["function", "create", "good", "-f", &files]).refused();
    assert!(told.contains("good") && told.contains("already exists"), "{told}");
    for name in ["../up", "UPPER", "-dash", "a.b", &"n".repeat(60)] {
        let told = up.minik8s(&["function", "create", "--", name, "-f", &files]);
        assert_ne!(told.code, 0, "{name} was taken");
    }
    let told = up.minik8s(&["function", "create", "nohandler", "-f", &files, "--handler", "main.absent"]).refused();
    assert!(told.contains("absent"), "{told}");
    up.minik8s(&["function", "delete", "nohandler"]).ok();
}

fn bad_bodies(up: &Up) {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for bad in ["{", "no json", "{\"a\": }", "[1, 2", "[NaN]", &deep] {
        let (status, told) = call(up, "/function/default/good", bad);
        assert!(status == 400 && told.contains("JSON"), "{bad}: {status} {told}");
    }
    let large = up.files().join("large");
    std::fs::write(&large, format!("\"{}\"", "x".repeat(11 << 20))).expect("a file");
    let (status, told) = call(up, "/function/default/good", &format!("@{}", large.display()));
    assert_eq!(status, 413, "{told}");
    // What fits is taken as it is.
    std::fs::write(&large, format!("\"{}\"", "x".repeat(9 << 20))).expect("a file");
    let (status, told) = call(up, "/function/default/good", &format!("@{}", large.display()));
    assert_eq!((status, told.len()), (200, (9 << 20) + 2));
}
