use super::*;
use crate::images::Execution;
use minik8s_core::runtime::{Mount, Security};

fn words(text: &str) -> Option<Vec<String>> {
    Some(text.split_whitespace().map(str::to_owned).collect())
}

fn image() -> ImageConfig {
    let config = Execution {
        entrypoint: words("/entry"),
        cmd: words("a b"),
        env: words("PATH=/bin A=image"),
        ..Execution::default()
    };
    ImageConfig { config, ..ImageConfig::default() }
}

fn spec_of(container: &ContainerSpec, change: impl FnOnce(&mut Input<'_>)) -> Result<Value, SpecError> {
    let (image, identity) = (image(), Identity { uid: 5, gid: 6, groups: vec![7] });
    let joined = Joined {
        net: Some("/p/net".into()),
        ipc: Some("/p/ipc".into()),
        uts: Some("/p/uts".into()),
        ..Joined::default()
    };
    let mut input = Input {
        image: &image,
        container,
        identity: &identity,
        joined: &joined,
        hostname: "web-0",
        hostname_file: Some("/p/hostname".into()),
        host_pid: false,
        cgroup: "/minik8s/pod1/c1",
        cgroup_v2: false,
        lowest_oom_score: -1000,
        profile: None,
        host_devices: Vec::new(),
        devices: Vec::new(),
    };
    change(&mut input);
    build(&input).map(|spec| serde_json::to_value(spec).expect("json"))
}

#[test]
fn commands_and_arguments_follow_the_rules_of_kubernetes() {
    for (command, args, want) in
        [("", "", "/entry a b"), ("", "x", "/entry x"), ("/own", "", "/own"), ("/own", "x y", "/own x y")]
    {
        let list = |t: &str| words(t).unwrap_or_default();
        let container = ContainerSpec { command: list(command), args: list(args), ..ContainerSpec::default() };
        let spec = spec_of(&container, |_| {}).expect("spec");
        assert_eq!(spec["process"]["args"], json!(words(want)), "{command:?} {args:?}");
    }
    let nothing = ImageConfig::default();
    let error = spec_of(&ContainerSpec::default(), |i| i.image = Box::leak(Box::new(nothing))).expect_err("no command");
    assert_eq!(error, SpecError::NoCommand);
}

#[test]
fn the_environment_is_layered_by_name() {
    let env = vec![("A".to_owned(), "own=1".to_owned()), ("B".to_owned(), String::new())];
    let spec = spec_of(&ContainerSpec { env, ..ContainerSpec::default() }, |_| {}).expect("spec");
    assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "HOSTNAME=web-0", "A=own=1", "B="]));
}

#[test]
fn directories_come_behind_what_a_variable_lists() {
    let pairs = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let env = pairs(&[("A", "own"), ("B", "")]);
    let paths = pairs(&[("PATH", "/x"), ("PATH", "/y"), ("A", "/z"), ("B", "/z"), ("L", "/z")]);
    let spec = spec_of(&ContainerSpec { env, paths, ..ContainerSpec::default() }, |_| {}).expect("spec");
    assert_eq!(spec["process"]["env"], json!(["PATH=/bin:/x:/y", "HOSTNAME=web-0", "A=own:/z", "B=/z", "L=/z"]));
}

#[test]
fn namespaces_are_joined_by_path() {
    let spec = spec_of(&ContainerSpec::default(), |_| {}).expect("spec");
    let kinds = |spec: &Value| -> Vec<String> {
        let list = spec["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|n| format!("{}:{}", n["type"].as_str().unwrap_or(""), n["path"].as_str().unwrap_or("")))
            .collect()
    };
    assert_eq!(kinds(&spec), ["mount:", "network:/p/net", "ipc:/p/ipc", "uts:/p/uts", "pid:"]);
    let host = spec_of(&ContainerSpec::default(), |i| {
        i.joined = Box::leak(Box::default());
        i.host_pid = true;
        i.cgroup_v2 = true;
    });
    assert_eq!(kinds(&host.expect("spec")), ["mount:", "cgroup:"]);
}

#[test]
fn mounts_are_ordered_and_the_agents_own_replace_ours() {
    let mount =
        |target: &str, read_only| Mount { source: "/src".into(), target: target.into(), read_only, propagate: false };
    let mounts = vec![mount("/data/deep", false), mount("/data", true), mount("/etc/hostname", true)];
    let spec = spec_of(&ContainerSpec { mounts, ..ContainerSpec::default() }, |_| {}).expect("spec");
    let targets: Vec<&str> =
        spec["mounts"].as_array().expect("list").iter().filter_map(|m| m["destination"].as_str()).collect();
    assert_eq!(targets[targets.len() - 3..], ["/data", "/data/deep", "/etc/hostname"][..].to_vec()[..].to_vec());
    assert_eq!(targets.iter().filter(|t| **t == "/etc/hostname").count(), 1);
    let data = spec["mounts"].as_array().expect("list").iter().find(|m| m["destination"] == "/data").expect("data");
    assert_eq!(data["options"], json!(["rbind", "rprivate", "ro"]));
}

#[test]
fn security_and_limits_reach_the_specification() {
    let security = Security {
        read_only_root: true,
        no_new_privileges: true,
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["KILL".into()],
        ..Security::default()
    };
    let resources = Resources {
        cpu_shares: 512,
        cpu_quota_us: 20_000,
        memory_bytes: 1 << 26,
        oom_score_adj: 99,
        ..Resources::default()
    };
    let spec = spec_of(&ContainerSpec { security, resources, ..ContainerSpec::default() }, |_| {}).expect("spec");
    assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_KILL"]));
    assert_eq!(spec["process"]["oomScoreAdj"], 99);
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert_eq!(spec["root"]["readonly"], true);
    assert_eq!(spec["linux"]["resources"]["cpu"], json!({"shares": 512, "quota": 20_000, "period": 100_000}));
    assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 1 << 26);
    let privileged = Security { privileged: true, ..Security::default() };
    let spec = spec_of(&ContainerSpec { security: privileged, ..ContainerSpec::default() }, |_| {}).expect("spec");
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
}

#[test]
fn refusals_say_why() {
    let security = Security { run_as_non_root: true, ..Security::default() };
    let root = Identity::default();
    let refused =
        spec_of(&ContainerSpec { security, ..ContainerSpec::default() }, |i| i.identity = Box::leak(Box::new(root)));
    assert_eq!(refused.expect_err("root"), SpecError::Root);
    let relative = ContainerSpec { working_dir: "x".into(), ..ContainerSpec::default() };
    assert_eq!(spec_of(&relative, |_| {}).expect_err("dir"), SpecError::WorkingDir("x".into()));
}

#[test]
fn users_are_looked_up_in_the_image() {
    let accounts = Accounts {
        passwd: "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/:/bin/sh\nbroken\n".into(),
        group: "wheel:x:10:root,app\nlog:x:2000:app\nbroken\n".into(),
    };
    let who = |user: &str, security: Security| identify(user, &security, &accounts).map(|i| (i.uid, i.gid, i.groups));
    let plain = Security::default;
    assert_eq!(who("", plain()), Ok((0, 0, vec![10])));
    assert_eq!(who("app", plain()), Ok((1000, 100, vec![10, 2000])));
    assert_eq!(who("1000", plain()), Ok((1000, 100, vec![10, 2000])));
    assert_eq!(who("app:log", plain()), Ok((1000, 2000, vec![10, 2000])));
    assert_eq!(who("4242:7", plain()), Ok((4242, 7, vec![])));
    assert_eq!(
        who("app", Security { user: Some(3), group: Some(4), supplemental_groups: vec![9, 8], ..plain() }),
        Ok((3, 4, vec![8, 9]))
    );
    let strict = Security { strict_groups: true, supplemental_groups: vec![9], ..plain() };
    assert_eq!(who("app", strict), Ok((1000, 100, vec![9])));
    assert_eq!(who("ghost", plain()), Err(SpecError::UnknownUser("ghost".into())));
    assert_eq!(who("app:ghost", plain()), Err(SpecError::UnknownGroup("ghost".into())));
    assert_eq!(who("", Security { user: Some(-1), ..plain() }), Err(SpecError::IdRange(-1)));
}

#[test]
fn filters_are_none_the_runtimes_or_a_files() {
    let of = |seccomp: Seccomp, privileged: bool, text: &str| {
        let security = Security { seccomp, privileged, ..Security::default() };
        let container = ContainerSpec { security, ..ContainerSpec::default() };
        spec_of(&container, |i| i.profile = Some(text.as_bytes().to_vec())).map(|s| s["linux"]["seccomp"].clone())
    };
    assert_eq!(of(Seccomp::Unconfined, false, ""), Ok(Value::Null));
    assert_eq!(of(Seccomp::RuntimeDefault, true, ""), Ok(Value::Null));
    let filter = of(Seccomp::RuntimeDefault, false, "").expect("filter");
    assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
    let file = || Seccomp::Profile("/p/x.json".into());
    let own = of(file(), false, r#"{"defaultAction": "SCMP_ACT_LOG"}"#).expect("profile");
    assert_eq!(own["defaultAction"], "SCMP_ACT_LOG");
    for wrong in ["", "nonsense", r#"{"defaultAction": "SOMETHING"}"#] {
        let error = of(file(), false, wrong).expect_err(wrong);
        assert!(error.to_string().contains("/p/x.json"), "{error}");
    }
}
