use super::*;
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn roots(&self) -> Roots {
        Roots { pod: self.0.path().join("pods/u") }
    }
}

fn pod(volumes: Value, mounts: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "1"}},
        "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]}}))
    .unwrap()
}

fn sources(data: Value) -> Sources {
    let map = serde_json::from_value::<k8s_openapi::api::core::v1::ConfigMap>(json!({"data": data})).unwrap();
    let secret: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(json!({"data": {"pass": "cGFzcw=="}})).unwrap();
    Sources {
        config_maps: [("cm".to_owned(), map.into())].into(),
        secrets: [("s".to_owned(), secret.into())].into(),
        services: vec![],
    }
}

fn mounts_of(pod: &Pod, roots: &Roots) -> VolumeResult<Vec<Mount>> {
    mounts(pod, &pod::spec(pod).containers[0], roots, |text| Ok(text.to_owned()))
}

#[test]
fn several_volumes_lie_apart_and_go_with_the_pod() {
    let home = Home::new();
    let pod = pod(
        json!([{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {"medium": "Memory"}},
            {"name": "c", "configMap": {"name": "cm", "items": [{"key": "k", "path": "dir/file", "mode": 256}]}},
            {"name": "d", "secret": {"secretName": "s", "defaultMode": 384}},
            {"name": "e", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "f", "projected": {"sources": [{"configMap": {"name": "cm"}}, {"secret": {"name": "s"}}]}}]),
        json!([{"name": "b", "mountPath": "/a/b"}, {"name": "a", "mountPath": "/a", "readOnly": true},
            {"name": "c", "mountPath": "/c", "subPath": "dir/file"}]),
    );
    let roots = home.roots();
    set_up(&pod, &roots, &sources(json!({"k": "v"})), &Facts::default()).unwrap();
    let read = |path: &str| fs::read_to_string(roots.pod.join("volumes").join(path)).unwrap();
    assert_eq!(read("c/dir/file"), "v");
    assert_eq!(read("d/pass"), "pass");
    assert_eq!(read("e/labels"), "a=\"1\"");
    assert_eq!((read("f/k"), read("f/pass")), ("v".to_owned(), "pass".to_owned()));
    let mode = |path: &str| fs::metadata(roots.pod.join("volumes").join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("c/dir/file"), mode("d/pass")), (0o400, 0o600));
    let mounts = mounts_of(&pod, &roots).unwrap();
    let seen: Vec<(&str, bool)> = mounts.iter().map(|m| (m.target.to_str().unwrap(), m.read_only)).collect();
    assert_eq!(seen, [("/a", true), ("/c", true), ("/a/b", false)]);
    assert_eq!(mounts[2].source, roots.pod.join("volumes/b"));
    assert_eq!(fs::read_to_string(&mounts[1].source).unwrap(), "v");
    roots.remove().unwrap();
    roots.remove().unwrap();
    assert!(!roots.pod.exists());
}

#[test]
fn content_changes_at_once_and_old_sets_go() {
    let home = Home::new();
    let pod = pod(json!([{"name": "c", "configMap": {"name": "cm"}}]), json!([]));
    let roots = home.roots();
    let root = roots.pod.join("volumes/c");
    let write = |data| set_up(&pod, &roots, &sources(data), &Facts::default()).unwrap();
    write(json!({"a": "1", "b": "1"}));
    let first = fs::read_link(root.join("..data")).unwrap();
    write(json!({"a": "1", "b": "1"}));
    assert_eq!(fs::read_link(root.join("..data")).unwrap(), first, "nothing changed");
    write(json!({"a": "2", "c": "2"}));
    assert_ne!(fs::read_link(root.join("..data")).unwrap(), first);
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "2");
    let mut names: Vec<String> =
        fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["..data", "..v1", "a", "c"]);
}

#[test]
fn a_sub_path_cannot_leave_its_volume() {
    let home = Home::new();
    let roots = home.roots();
    let with = |sub: &str| {
        pod(json!([{"name": "a", "emptyDir": {}}]), json!([{"name": "a", "mountPath": "/a", "subPath": sub}]))
    };
    set_up(&with("x"), &roots, &Sources::default(), &Facts::default()).unwrap();
    let root = roots.pod.join("volumes/a");
    symlink("/etc", root.join("out")).unwrap();
    symlink("/no-such-place/x", root.join("nowhere")).unwrap();
    fs::create_dir(root.join("real")).unwrap();
    symlink("real", root.join("in")).unwrap();
    for (sub, good) in [
        ("new/deep", true),
        ("in", true),
        ("out", false),
        ("out/passwd", false),
        ("nowhere", false),
        ("../x", false),
        ("/etc", false),
        ("real/../../x", false),
    ] {
        let result = mounts_of(&with(sub), &roots);
        assert_eq!(result.is_ok(), good, "{sub}: {result:?}");
    }
    assert!(root.join("new/deep").is_dir());
}

#[test]
fn host_paths_are_what_they_claim() {
    let home = Home::new();
    let dir = home.0.path().join("host");
    let ensure = |kind: &str, path: &Path| {
        let volume = json!([{"name": "h", "hostPath": {"path": path, "type": kind}}]);
        set_up(&pod(volume, json!([])), &home.roots(), &Sources::default(), &Facts::default())
    };
    ensure("Directory", &dir).unwrap_err();
    ensure("DirectoryOrCreate", &dir).unwrap();
    ensure("Directory", &dir).unwrap();
    ensure("File", &dir).unwrap_err();
    ensure("FileOrCreate", &dir.join("f")).unwrap();
    ensure("File", &dir.join("f")).unwrap();
    let error = ensure("Socket", &dir.join("f")).unwrap_err().to_string();
    assert!(error.contains("is not a socket"), "{error}");
    ensure("CharDevice", Path::new("/dev/null")).unwrap();
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let home = Home::new();
    for (volume, want) in [
        (json!({"configMap": {"name": "no"}}), "configmap \"no\" not found"),
        (json!({"secret": {"secretName": "no"}}), "secret \"no\" not found"),
        (json!({"configMap": {"name": "cm", "items": [{"key": "no", "path": "x"}]}}), "has no key \"no\""),
        (json!({"nfs": {"server": "s", "path": "/"}}), "nfs"),
        (json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}), "serviceAccountToken"),
    ] {
        let mut volume = volume;
        volume["name"] = json!("v");
        let pod = pod(json!([volume]), json!([]));
        let error = set_up(&pod, &home.roots(), &sources(json!({})), &Facts::default()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    let optional = pod(json!([{"name": "v", "configMap": {"name": "no", "optional": true}}]), json!([]));
    set_up(&optional, &home.roots(), &Sources::default(), &Facts::default()).unwrap();
    let undefined = pod(json!([]), json!([{"name": "x", "mountPath": "/x"}]));
    mounts_of(&undefined, &home.roots()).unwrap_err();
}

#[test]
fn writers_at_the_same_time_leave_one_of_their_sets_whole() {
    let home = Home::new();
    let roots = home.roots();
    let pod = pod(json!([{"name": "c", "configMap": {"name": "cm"}}]), json!([]));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (pod, roots) = (&pod, &roots);
            scope.spawn(move || {
                for n in 0..50 {
                    let data = sources(json!({"k": format!("{writer} {n}"), "l": format!("{writer} {n}")}));
                    set_up(pod, roots, &data, &Facts::default()).unwrap();
                }
            });
        }
    });
    let read = |name: &str| fs::read_to_string(roots.pod.join("volumes/c").join(name)).unwrap();
    assert!(read("k").ends_with(" 49"));
    assert_eq!(read("k"), read("l"));
}

#[test]
fn a_sub_path_made_on_the_host_is_like_what_it_lies_in() {
    let home = Home::new();
    let host = home.0.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::set_permissions(&host, fs::Permissions::from_mode(0o750)).unwrap();
    let volumes = json!([{"name": "h", "hostPath": {"path": host}}, {"name": "e", "emptyDir": {}}]);
    let mounts =
        json!([{"name": "h", "mountPath": "/h", "subPath": "a/b"}, {"name": "e", "mountPath": "/e", "subPath": "a/b"}]);
    let mut pod = pod(volumes, mounts);
    pod.spec.as_mut().unwrap().security_context = Some(serde_json::from_value(json!({"fsGroup": 4321})).unwrap());
    let roots = home.roots();
    set_up(&pod, &roots, &Sources::default(), &Facts::default()).unwrap();
    mounts_of(&pod, &roots).unwrap();
    let look = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.permissions().mode() & 0o7777, std::os::unix::fs::MetadataExt::gid(&meta))
    };
    let own = look(&host).1;
    assert_eq!([look(&host.join("a")), look(&host.join("a/b"))], [(0o750, own); 2]);
    let empty = roots.pod.join("volumes/e");
    assert_eq!(look(&empty.join("a/b")), look(&empty));
    assert_eq!(look(&empty).0, 0o2777);
}

#[test]
fn an_empty_volume_appears_whole() {
    let home = Home::new();
    let roots = home.roots();
    let pod = pod(json!([{"name": "a", "emptyDir": {}}]), json!([]));
    let root = roots.pod.join("volumes/a");
    // Left by an agent that was killed before the directory was as it should be.
    let beside = root.with_file_name("..a");
    fs::create_dir_all(&beside).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o700)).unwrap();
    set_up(&pod, &roots, &Sources::default(), &Facts::default()).unwrap();
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o777);
    assert!(!beside.exists(), "it was taken for the volume");
    fs::write(root.join("f"), "x").unwrap();
    set_up(&pod, &roots, &Sources::default(), &Facts::default()).unwrap();
    assert!(root.join("f").exists());
}

#[test]
fn who_locks_what_they_see_of_a_volume_holds_up_nobody() {
    let home = Home::new();
    let pod = pod(json!([{"name": "c", "configMap": {"name": "cm"}}]), json!([]));
    let roots = home.roots();
    set_up(&pod, &roots, &sources(json!({"k": "old"})), &Facts::default()).unwrap();
    let volume = roots.volumes().join("c");
    // What a container has of it: the directory and what is in it.
    let held = [volume.clone(), volume.join("k")].map(|path| fs::File::open(path).unwrap());
    held.iter().for_each(|file| file.lock().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        tell.send(set_up(&pod, &roots, &sources(json!({"k": "new"})), &Facts::default()).is_ok())
    });
    assert_eq!(told.recv_timeout(std::time::Duration::from_secs(20)), Ok(true));
    assert_eq!(fs::read_to_string(volume.join("k")).unwrap(), "new");
}
