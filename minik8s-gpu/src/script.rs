//! The files that make a job run: the wrapper around its commands, the commands, and their environment. Pure; the same for
//! every backend. Nothing of a request stands in the wrapper but quoted texts and numbers: commands are files of their own.

use bytes::Bytes;
use minik8s_core::job::{FileName, JobError, JobRequest, JobResult, SourceFile};
use std::fmt::Write as _;

/// A text as one word of a shell, whatever it holds but zero bytes.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A file of ours in a job's directory.
pub(crate) fn file(name: &str, content: String, executable: bool) -> SourceFile {
    SourceFile { name: FileName::output(name, None), content: Bytes::from(content), executable }
}

/// The files of a job, below its directory: `job.sh` and what it needs. Source files are below `work`.
pub(crate) fn files(job: &JobRequest) -> Vec<SourceFile> {
    let mut files = vec![
        file("job.sh", wrapper(job), true),
        file("env", environment(job), false),
        file("run.sh", format!("{}\n", job.run), false),
    ];
    files.extend(job.compile.iter().map(|compile| file("compile.sh", format!("{compile}\n"), false)));
    if let Some(array) = &job.array {
        let indices: Vec<String> = array.indices.iter().map(u32::to_string).collect();
        files.push(file("array", format!("{}\n", indices.join(",")), false));
    }
    files
}

/// Sets and exports variables.
pub(crate) fn environment(job: &JobRequest) -> String {
    job.env.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "export {name}={}", quote(value));
        text
    })
}

/// Where jobs are no containers, an image means nothing.
pub(crate) fn without_image(job: &JobRequest) -> JobResult<()> {
    let why = || "jobs of this JobCluster run in no container: leave it out, or choose one with spec.nodes".to_owned();
    job.image.as_ref().map_or(Ok(()), |_| Err(JobError::Refused { field: Some("image"), why: why() }))
}

/// Claims the job for the first that runs it, prepares, runs, and leaves behind how that ended: `CODE WHY ID TIME` in
/// `exit`, or in `exit.INDEX` for a task of an array. What runs a second time does nothing.
const HEAD: &str = r#"#!/bin/bash
# Written by minik8s. The first argument is the directory of the job.
mk_dir=$1
mk_own=${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-$MINIK8S_JOB_ID}}
mk_task=${SLURM_ARRAY_TASK_ID:-}
cd "$mk_dir/work" 2>/dev/null || exit 0
printf '%s\n' "$mk_own" >"$mk_dir/.claim.$$" && ln "$mk_dir/.claim.$$" "$mk_dir/claim" 2>/dev/null
rm -f "$mk_dir/.claim.$$"
read -r mk_claim <"$mk_dir/claim"
[ "$mk_claim" = "$mk_own" ] || exit 0
mk_end() {
  mk_exit=$mk_dir/exit${mk_task:+.$mk_task}
  printf '%s %s %s %s\n' "$1" "$2" "$mk_own" "$(date +%s)" >"$mk_exit.new" && mv -f "$mk_exit.new" "$mk_exit"
  exit "$1"
}
export JOB_TASK_INDEX=$mk_task
mk_within() (
  . "$mk_dir/env" || exit 125
"#;

const COMPILE: &str = r#"exec 8>"$mk_dir/compile.lock"
command -v flock >/dev/null && flock 8
if [ ! -e "$mk_dir/compiled" ]; then
  mk_within bash "$mk_dir/compile.sh" 8>&-
  mk_code=$?
  [ "$mk_code" = 0 ] || mk_end "$mk_code" compile
  : >"$mk_dir/compiled"
fi
exec 8>&-
"#;

const MODULES: &str = r#"  for mk_init in /etc/profile.d/lmod.sh /etc/profile.d/modules.sh /usr/share/lmod/lmod/init/bash; do
    type module >/dev/null 2>&1 || { [ -r "$mk_init" ] && . "$mk_init"; }
  done
"#;

fn wrapper(job: &JobRequest) -> String {
    let mut text = HEAD.to_owned();
    if !job.modules.is_empty() {
        text.push_str(MODULES);
    }
    for module in &job.modules {
        let _ = writeln!(text, "  module load {} || exit 125", quote(module));
    }
    text.push_str("  exec \"$@\"\n)\n");
    if job.compile.is_some() {
        text.push_str(COMPILE);
    }
    match job.time_limit.map(|limit| limit.as_secs().max(1)) {
        None => text.push_str("mk_within bash \"$mk_dir/run.sh\"\nmk_end $? run\n"),
        Some(limit) => {
            let _ = write!(
                text,
                "mk_began=$(date +%s)\nmk_within timeout -k 10 {limit} bash \"$mk_dir/run.sh\"\nmk_code=$?\n\
                 if [ \"$mk_code\" = 124 ] && [ $(($(date +%s) - mk_began)) -ge {limit} ]; then mk_end 124 timeout; fi\n\
                 mk_end \"$mk_code\" run\n"
            );
        }
    }
    text
}

/// How a job's commands ended, as its wrapper left it behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// The exit code.
    pub(crate) code: i32,
    /// Which commands: `run`, `compile`, or why they were ended or never run: `timeout`, `memory`, `launch`.
    pub(crate) what: String,
    /// Who ran them.
    pub(crate) native: String,
    /// When that was, in seconds.
    pub(crate) at: i64,
}

impl Left {
    /// Reads a line of the wrapper.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [code, what, native, at] = words.as_slice() else { return None };
        let (what, native) = ((*what).to_owned(), (*native).to_owned());
        Some(Self { code: code.parse().ok()?, what, native, at: at.parse().ok()? })
    }

    /// What that means.
    pub(crate) fn end(&self) -> minik8s_core::job::JobEnd {
        use minik8s_core::job::{EndReason, JobEnd};
        let reason = match (self.what.as_str(), self.code) {
            ("timeout", _) => EndReason::Timeout,
            ("compile", _) => EndReason::CompileError,
            ("memory", _) => EndReason::OutOfMemory,
            ("launch", _) => EndReason::LaunchError,
            (_, 0) => EndReason::Completed,
            _ => EndReason::Error,
        };
        JobEnd::new(reason, Some(self.code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::job::{EndReason, JobEnd};
    use proptest::prelude::*;
    use std::process::Command;

    fn bash(script: &str) -> String {
        let ran = Command::new("bash").arg("-c").arg(script).output().unwrap();
        String::from_utf8(ran.stdout).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_quoted_arrives_as_it_is(text in "[^\0]{0,60}") {
            prop_assert_eq!(bash(&format!("printf %s {}", quote(&text))), text);
        }

        #[test]
        fn variables_arrive_as_they_are(text in "[\\x01-\\x7fäß\u{1F600}]{0,60}") {
            let job = JobRequest { env: [("A_1".to_owned(), text.clone())].into(), ..JobRequest::default() };
            prop_assert_eq!(bash(&format!("{}\nprintf %s \"$A_1\"", environment(&job))), text);
        }

        #[test]
        fn commands_never_stand_in_the_wrapper(text in "[ -~\n]{1,60}") {
            let plain = JobRequest { compile: Some("true".to_owned()), ..JobRequest::default() };
            let job = JobRequest { run: text.clone(), compile: Some(text), ..plain.clone() };
            prop_assert_eq!(wrapper(&job), wrapper(&plain));
        }
    }

    /// Runs a job's wrapper where `module` is a function that pretends; answers its output and what it left.
    fn wrapped(job: &JobRequest, module: &str) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        for file in files(job) {
            std::fs::write(dir.path().join(file.name.as_str()), &file.content).unwrap();
        }
        let mut command = Command::new("bash");
        command.arg(dir.path().join("job.sh")).arg(dir.path()).env("MINIK8S_JOB_ID", "7");
        let ran = command.env("BASH_FUNC_module%%", format!("() {{ {module}\n}}")).output().unwrap();
        let left = std::fs::read_to_string(dir.path().join("exit")).unwrap_or_default();
        (String::from_utf8(ran.stdout).unwrap(), left)
    }

    #[test]
    fn modules_are_loaded_in_order_before_commands_which_do_not_run_without_them() {
        let modules = ["cuda/12.4", "gcc"].map(str::to_owned).to_vec();
        let job = JobRequest { modules, run: "echo run $LOADED".to_owned(), ..JobRequest::default() };
        let (out, left) = wrapped(&job, r#"[ "$1" = load ] && export LOADED="$LOADED+$2""#);
        assert_eq!((out.as_str(), left.starts_with("0 run 7 ")), ("run +cuda/12.4+gcc\n", true), "{left}");
        let (out, left) = wrapped(&job, "echo no such module >&2; return 1");
        assert_eq!((out.as_str(), left.starts_with("125 run 7 ")), ("", true), "{left}");
    }

    #[test]
    fn what_the_wrapper_leaves_is_read() {
        let end = |line: &str| Left::parse(line).map(|left| left.end());
        for (line, want) in [
            ("0 run 12 1700000000", Some(JobEnd::new(EndReason::Completed, Some(0)))),
            ("3 run 12 1700000000", Some(JobEnd::new(EndReason::Error, Some(3)))),
            ("2 compile 12 1700000000", Some(JobEnd::new(EndReason::CompileError, Some(2)))),
            ("124 timeout 12 1700000000", Some(JobEnd::new(EndReason::Timeout, Some(124)))),
            ("", None),
            ("0 run", None),
            ("x run 12 1", None),
        ] {
            assert_eq!(end(line), want, "{line}");
        }
    }
}
