//! What runs in a job's container. Pure, and the least that an image must have: `sh`, `tar`, `gzip` and the usual small tools;
//! commands are run by `bash` where the image has it.

use crate::script::{environment, file};
use minik8s_core::job::{JobRequest, SourceFile};
use std::fmt::Write as _;

/// Where a job's files are in its container: its volume.
pub(super) const PLACE: &str = "/minik8s/job";
/// Where the files it starts with are, packed and in pieces.
pub(super) const PARCEL: &str = "/minik8s/parcel";

/// The container's command, which says so where its files cannot be unpacked. Kubernetes replaces two dollar signs by one and
/// names in parentheses behind one: there is neither.
pub(super) const BOOT: &str = r#"mk_dir=/minik8s/job; cd "$mk_dir" || exit 125
exec >>stdout 2>>stderr || exit 125
mkdir -p work && cat /minik8s/parcel/* | gzip -dc | tar -xf - || {
  printf '126 launch %s %s\n' "$MINIK8S_JOB_ID" "`date +%s`" >/dev/termination-log; exit 126
}
exec sh "$mk_dir/job.sh""#;

/// The shell that runs this is the first process of the container: what it is asked to end, it asks all others to, and when it
/// ends, the kernel ends them. It leaves behind how the job ended, as `CODE WHY ID TIME`.
const HEAD: &str = r#"#!/bin/sh
# Written by minik8s.
mk_dir=/minik8s/job
# What this shell has to say of its processes is nothing that the job said.
exec 9>&2 2>/dev/null
mk_sh=$(command -v bash || echo sh)
mk_starved() {
  for mk_file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$mk_file" ] || continue
    while read -r mk_key mk_value; do
      [ "$mk_key" = oom_kill ] && [ "$mk_value" -gt 0 ] && return 0
    done <"$mk_file"
  done
  return 1
}
mk_end() {
  if mk_starved; then [ "$1" != 0 ] || set -- 137; set -- "$1" memory; fi
  printf '%s %s %s %s\n' "$1" "$2" "$MINIK8S_JOB_ID" "$(date +%s)" >/dev/termination-log
  exit "$1"
}
mk_run() {
  (
    trap - TERM
    exec 2>&9 9>&-
    . "$mk_dir/env" || exit 125
    cd "$mk_dir/work" || exit 125
    exec "$mk_sh" "$1"
  ) &
  mk_pid=$!
  mk_code=0
  # Asked to end, it goes on waiting for what was asked as well.
  while :; do
    wait "$mk_pid"
    mk_code=$?
    kill -0 "$mk_pid" 2>/dev/null || break
  done
}
trap 'kill -TERM -1 2>/dev/null' TERM
"#;

const COMPILE: &str = r#"mk_run "$mk_dir/compile.sh"
[ "$mk_code" = 0 ] || mk_end "$mk_code" compile
"#;

/// The job's own files, beside those it starts with.
pub(super) fn files(job: &JobRequest) -> Vec<SourceFile> {
    let mut files = vec![
        file("job.sh", wrapper(job), true),
        file("env", environment(job), false),
        file("run.sh", format!("{}\n", job.run), false),
    ];
    files.extend(job.compile.iter().map(|compile| file("compile.sh", format!("{compile}\n"), false)));
    files
}

fn wrapper(job: &JobRequest) -> String {
    let mut text = HEAD.to_owned();
    if job.compile.is_some() {
        text.push_str(COMPILE);
    }
    if let Some(limit) = job.time_limit.map(|limit| limit.as_secs().max(1)) {
        let _ = writeln!(
            text,
            // A job may end processes called `sleep`, its own or not: time alone counts.
            "( trap - TERM; mk_due=$(( $(date +%s) + {} )); while mk_left=$(( mk_due - $(date +%s) )); [ $mk_left -gt 0 ]; \
             do sleep $mk_left; done; : >\"$mk_dir/late\"; kill -TERM -1; sleep 10; kill -KILL -1 ) 9>&- &",
            limit
        );
    }
    text.push_str("mk_run \"$mk_dir/run.sh\"\n[ ! -e \"$mk_dir/late\" ] || mk_end \"$mk_code\" timeout\nmk_end \"$mk_code\" run\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_of_a_request_stands_in_what_is_run_but_numbers() {
        let nasty = "$(touch /tmp/owned)'\"";
        let job = JobRequest {
            run: nasty.to_owned(),
            compile: Some(nasty.to_owned()),
            time_limit: Some(Duration::from_secs(61)),
            ..JobRequest::default()
        };
        let all = files(&job);
        assert_eq!(all.len(), 4);
        let text = String::from_utf8(all[0].content.to_vec()).unwrap();
        assert!(all[0].executable && !text.contains("owned") && text.contains("date +%s) + 61 ))"), "{text}");
        assert!(!BOOT.contains("$$") && !BOOT.contains("$("), "a pod's command is expanded");
        assert!(!files(&JobRequest::default())[0].content.windows(5).any(|w| w == b"sleep"), "no limit, no watch");
    }
}
