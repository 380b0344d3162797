//! What the kernel keeps containers from: system calls that are filtered, volumes that are full.

use crate::harness::{Harness, able};
use minik8s_core::runtime::{
    ContainerSpec, ContainerState, Containers, MemoryVolume, Mount, RuntimeError, Sandboxes, Seccomp, Volumes,
};
use minik8s_core::testkit::wait::until;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs the container to its end; answers what it printed, without the log's own words.
async fn output(h: &Harness, spec: &ContainerSpec) -> String {
    h.run("pod", spec).await;
    until("it has ended", Duration::from_secs(30), || async {
        let info = h.runtime.container(&spec.id).await.expect("container").expect("it is there");
        matches!(info.state, ContainerState::Exited(_)).then_some(())
    })
    .await;
    let log = std::fs::read_to_string(&spec.log_path).expect("log");
    let text = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    log.lines().map(text).collect::<Vec<_>>().join("\n")
}

fn filtered(h: &Harness, id: &str, script: &str, seccomp: Seccomp, add: &[&str]) -> ContainerSpec {
    let mut spec = h.script(id, script);
    spec.security.seccomp = seccomp;
    spec.security.add_capabilities = add.iter().map(ToString::to_string).collect();
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtimes_filter_lets_programs_work_and_refuses_what_administers() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    let mode = "grep ^Seccomp: /proc/self/status | tr -d '\\t'";
    let unfiltered = filtered(&h, "free", mode, Seccomp::Unconfined, &[]);
    assert_eq!(output(&h, &unfiltered).await, "Seccomp:0");
    // A shell with children, pipes, files, sleep and sockets, then calls that are refused: a user namespace needs no
    // capability, so that only the filter can say no.
    let script = format!(
        "{mode}; (echo a; echo b) | sort -r | head -n 1; sleep 0.01; echo x > /tmp/x; cat /tmp/x; mkdir /tmp/d; \
         nc -w 1 127.0.0.1 9 </dev/null 2>/dev/null; unshare -U true 2>&1; echo $?"
    );
    let default = filtered(&h, "default", &script, Seccomp::RuntimeDefault, &[]);
    let printed = output(&h, &default).await;
    assert!(printed.starts_with("Seccomp:2\nb\nx\nunshare"), "{printed}");
    assert!(printed.contains("not permitted") && printed.ends_with("\n1"), "{printed}");
    let mount = "mount -t tmpfs tmpfs /tmp 2>&1 && echo mounted";
    let plain = output(&h, &filtered(&h, "plain", mount, Seccomp::RuntimeDefault, &[])).await;
    assert!(plain.contains("ermission denied") || plain.contains("not permitted"), "{plain}");
    let admin = output(&h, &filtered(&h, "admin", mount, Seccomp::RuntimeDefault, &["SYS_ADMIN"])).await;
    assert_eq!(admin, "mounted");
    h.runtime.remove_sandbox("pod").await.expect("remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_ones_own_is_obeyed_and_must_be_there_and_make_sense() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    let path = |name: &str| h.dir.path().join(name);
    let rule = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}"#;
    let profile = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
    std::fs::write(path("no-mkdir.json"), profile).expect("profile");
    std::fs::write(path("broken.json"), "{").expect("profile");
    let make = "mkdir /tmp/d 2>&1; touch /tmp/f && echo touched";
    let own = filtered(&h, "own", make, Seccomp::Profile(path("no-mkdir.json")), &[]);
    let printed = output(&h, &own).await;
    assert!(printed.contains("ead-only") && printed.ends_with("touched"), "{printed}");
    for name in ["missing.json", "broken.json"] {
        let spec = filtered(&h, "wrong", make, Seccomp::Profile(path(name)), &[]);
        let error = h.runtime.create_container("pod", &spec).await.expect_err(name);
        assert!(matches!(error, RuntimeError::Container { operation: "create", .. }), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("seccomp"), "{error}");
    }
    h.runtime.remove_sandbox("pod").await.expect("remove");
}

fn mounts_below(directory: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    table.lines().filter(|l| l.split(' ').nth(4).is_some_and(|t| Path::new(t).starts_with(directory))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_in_memory_have_a_size_an_owner_and_an_end() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    let home: PathBuf = h.dir.path().join("volumes");
    h.runtime.unmount_below(&home).await.expect("missing is success");
    let volume = MemoryVolume { directory: home.join("a b"), size: 1 << 20, group: Some(2000) };
    h.runtime.mount_memory(&volume).await.expect("mount");
    std::fs::write(volume.directory.join("kept"), "kept").expect("write");
    h.runtime.mount_memory(&volume).await.expect("again");
    assert_eq!(mounts_below(&home), 1);
    let meta = std::fs::metadata(&volume.directory).expect("metadata");
    assert_eq!((meta.gid(), meta.mode() & 0o7777), (2000, 0o2777));
    let mut spec = h.script("c", "cat /v/kept; echo; dd if=/dev/zero of=/v/big bs=64k count=64 2>&1; ls -n /v/big");
    spec.mounts = vec![Mount { source: volume.directory.clone(), target: "/v".into(), ..Mount::default() }];
    let printed = output(&h, &spec).await;
    assert!(
        printed.starts_with("kept") && printed.contains("No space left") && printed.contains(" 2000 "),
        "{printed}"
    );
    for _ in 0..2 {
        h.runtime.unmount_below(&home).await.expect("unmount");
        assert_eq!(mounts_below(&home), 0);
    }
    assert_eq!(std::fs::read_dir(&volume.directory).expect("directory").count(), 0, "nothing was written to the disk");
    h.runtime.remove_sandbox("pod").await.expect("remove");
}
