//! What runs on the other side. Fixed texts: everything variable is an argument or comes through standard input, so that
//! nothing has to be quoted into them. They answer in lines that begin with a letter and `|`.

/// Begins each: where the files are, and times as numbers.
const HEAD: &str = r#"set -u; umask 077; export LC_ALL=C SLURM_TIME_FORMAT=%s
root=$1; shift
case $root in /*) ;; *) root=$HOME/$root ;; esac
away() { case $1 in *"timed out"*|*"Unable to contact"*|*uthentication*|*emporarily*|*"onnection refused"*|*"ommunication connection failure"*|*"Zero Bytes"*|*"onnection reset"*) return 0;; esac; return 1; }
flat() { printf '%s' "$1" | tr '\n|' '  ' | cut -c 1-900; }
locked() { command -v flock >/dev/null || return 0; exec 9>"$1/lock" && flock -w 40 9; }
# The job that goes by a name, where the batch system knows one: its first run, if there were several.
named() {
  found=$(squeue -h -t all -u "$(id -un)" -n "$1" -O 'ArrayJobID:|,State:|,Reason:|' 2>&1) || return 1
  found=$(printf '%s\n' "$found" | grep '^[0-9]' | grep -v '|FAILED|BadConstraints' | cut -d'|' -f1)
  [ -n "$found" ] || found=$(sacct -n -P -X --name "$1" -S now-7days -o JobID,State 2>/dev/null | cut -d'|' -f1 | cut -d_ -f1)
  found=$(printf '%s\n' "$found" | grep -E '^[0-9]+$' | sort -nu)
}
known() { id=; read -r id <"$1/claim" || read -r id <"$1/jobid"; [ -n "$id" ]; } 2>/dev/null
"#;

/// Name, seconds that an unanswered submission may still be taken, suffix of output files, then arguments of `sbatch`;
/// the job's files as an archive at standard input. `I|ID` where it is there, `U|WHY` where that is not clear, `R|WHY` where it is refused, `D|WHY`
/// where there is no room.
const SUBMIT: &str = r#"name=$1 settle=$2 suffix=$3; shift 3; d=$root/$name
if [ -d "$d" ]; then cat >/dev/null
else
  why=$(mkdir -p "$root" 2>&1) || { echo "D|$(flat "$why")"; exit 0; }
  t=$root/.$name.$$; rm -rf "$t"
  why=$( { mkdir "$t" && tar -xf - -C "$t" && mkdir -p "$t/work"; } 2>&1) || { rm -rf "$t"; echo "D|$(flat "$why")"; exit 0; }
  mv -T "$t" "$d" 2>/dev/null || rm -rf "$t"
fi
locked "$d" || { echo 'U|another submission of it is under way'; exit 0; }
known "$d" && { echo "I|$id"; exit 0; }
settled() { printf '%s\n' "$1" >"$d/jobid.new" && mv -f "$d/jobid.new" "$d/jobid"; echo "I|$1"; exit 0; }
pick() { first=; for one in $found; do if [ -z "$first" ]; then first=$one; else scancel "$one"; fi; done; }
if [ -e "$d/attempt" ]; then
  named "$name" || { echo "U|$(flat "$found")"; exit 0; }
  pick; [ -z "$first" ] || settled "$first"
  age=$(($(date +%s) - $(stat -c %Y "$d/attempt")))
  [ "$age" -ge "$settle" ] || { echo "U|a submission that was not answered may still be taken"; exit 0; }
fi
: >"$d/attempt" || { echo 'D|cannot write'; exit 0; }
said=$(sbatch "$@" --chdir="$d/work" --output="$d/stdout$suffix" --error="$d/stderr$suffix" "$d/job.sh" "$d" 2>"$d/sbatch.err" 9>&-) && ok=yes || ok=no
err=$(cat "$d/sbatch.err")
id=$(printf '%s\n' "$said" | sed -n 's/^\([0-9][0-9]*\)\(;.*\)\{0,1\}$/\1/p' | tail -n 1)
[ "$ok" = yes ] && [ -n "$id" ] && settled "$id"
away "$err" && { echo "U|$(flat "$err")"; exit 0; }
named "$name" || { echo "U|$(flat "$err")"; exit 0; }
pick; [ -z "$first" ] || settled "$first"
rm -rf "$d"; echo "R|$(flat "$err $said")"
"#;

/// Name. `I|ID`, `N|`, or `U|WHY`.
const FIND: &str = r#"name=$1 d=$root/$1
[ -d "$d" ] || { echo 'N|'; exit 0; }
locked "$d" || { echo 'U|a submission of it is under way'; exit 0; }
known "$d" && { echo "I|$id"; exit 0; }
[ -e "$d/attempt" ] || { echo 'N|'; exit 0; }
named "$name" || { echo "U|$(flat "$found")"; exit 0; }
for one in $found; do echo "I|$one"; exit 0; done
echo 'U|a submission that was not answered may still be taken'
"#;

/// Lines of name and id at standard input. See `parse` for the lines of the answer.
const POLL: &str = r#"list=$(cat)
echo "N|$(date +%s)"
ids=$(printf '%s\n' "$list" | cut -d' ' -f2 | sort -u | paste -sd, -)
told=$(squeue -h -t all -j "$ids" -O 'ArrayJobID:|,ArrayTaskID:|,State:|,StartTime:|,EndTime:|,NodeList:|,Name:|,RestartCnt:|,Reason:|' 2>&1) || {
  case $told in *"Invalid job id"*) told= ;; *) echo "X|$(flat "$told")"; exit 0 ;; esac
}
[ -z "$told" ] || printf '%s\n' "$told" | sed 's/^/Q|/'
gone=$({ printf '%s\n' "$told"; echo '---'; printf '%s\n' "$list"; } | awk -F'|' '
  $0 == "---" { second = 1; next } !second { seen[$1] = 1; next } { split($0, w, " "); if (!(w[2] in seen)) print w[2] }' | paste -sd, -)
[ -z "$gone" ] || sacct -n -P -X -j "$gone" -S now-30days -o JobID,State,ExitCode,NodeList,Start,End,JobName 2>/dev/null | sed 's/^/S|/'
cd "$root" 2>/dev/null || exit 0
printf '%s\n' "$list" | while read -r name id; do
  [ -d "$name" ] || { echo "G|$name"; continue; }
  claim=; [ ! -s "$name/claim" ] || read -r claim <"$name/claim"; [ -z "$claim" ] || echo "C|$name|$claim"
  indices=; [ ! -s "$name/array" ] || read -r indices <"$name/array"; [ -z "$indices" ] || echo "A|$name|$indices"
  for f in "$name/exit" "$name"/exit.*; do case $f in *.new) continue;; esac; line=; [ ! -s "$f" ] || read -r line <"$f"; [ -z "$line" ] || echo "E|$f|$line"; done
done
printf '%s\n' "$told" | awk -F'|' '$3 ~ /^(COMPLETED|FAILED|CANCELLED|TIMEOUT|OUT_OF_MEMORY|NODE_FAIL|BOOT_FAIL|DEADLINE|PREEMPTED|REVOKED)/ { print $1, $7 }' | sort -u | while read -r id name; do
  [ -s "$name/exit" ] || [ -s "$name/array" ] || scontrol show job -o "$id" 2>/dev/null | sed 's/^/T|/'
done
printf '%s\n' "$list" | while read -r name id; do
  for f in "$name"/stdout* "$name"/stderr*; do [ -f "$f" ] && echo "$f"; done
done | xargs -r stat -c 'F|%s|%n'
"#;

/// Name, how many results at most, then patterns. `D|SIZE|SHA256|NAME`, or `N|`.
const FILES: &str = r#"name=$1 most=$2; shift 2
cd "$root/$name" 2>/dev/null || { echo 'N|'; exit 0; }
nl='
'
tell() { s=$(sha256sum <"$1") && echo "D|$(stat -L -c %s -- "$1")|${s%% *}|$2"; }
for f in stdout* stderr*; do [ ! -f "$f" ] || [ -L "$f" ] || tell "./$f" "$f"; done
cd work || exit 0
here=$(pwd -P); IFS=
for pattern in "$@"; do
  for f in $pattern; do
    [ -f "$f" ] && [ ! -L "$f" ] || continue
    case $f in *"$nl"*) continue ;; esac
    real=$(realpath -e -- "./$f") || continue
    [ "$real" = "$here/$f" ] || continue
    [ "$most" -gt 0 ] || exit 0
    tell "./$f" "results/$f" && most=$((most - 1))
  done
done
"#;

/// Name, file, offset, most. The bytes; ends with 44 where there is no such job.
const READ: &str = r#"cd "$root/$1" 2>/dev/null || exit 44
file=$2
case $file in
  results/*) cd work || exit 0; file=${file#results/} ;;
  stdout*|stderr*) ;;
  *) exit 0 ;;
esac
[ -f "$file" ] && [ ! -L "$file" ] && [ "$(realpath -e -- "./$file")" = "$(pwd -P)/$file" ] || exit 0
tail -c +"$(($3 + 1))" -- "./$file" | head -c "$4"
"#;

/// Name, and whether its files go too (`yes`). `O|`, `X|WHY` where the batch system does not answer, `W|WHY` where files
/// cannot be removed.
const CANCEL: &str = r#"name=$1 files=$2 d=$root/$1
[ -d "$d" ] || { echo 'O|'; exit 0; }
locked "$d" || { echo 'X|a submission of it is under way'; exit 0; }
if [ ! -s "$d/exit" ] && { [ -e "$d/attempt" ] || known "$d"; }; then
  known "$d" && ids=$id || ids=
  said=$( { [ -z "$ids" ] || scancel $ids; scancel -u "$(id -un)" -n "$name"; } 2>&1)
  code=$?
  if away "$said" || { [ "$code" != 0 ] && ! scontrol ping >/dev/null 2>&1; }; then echo "X|$(flat "$said")"; exit 0; fi
fi
if [ "$files" = yes ]; then
  t=$root/.$name.gone.$$
  why=$(mv -T "$d" "$t" 2>&1 && { rm -rf "$t" 2>/dev/null || { sleep 1; rm -rf "$t" 2>&1; }; }) || { echo "W|$(flat "$why")"; exit 0; }
fi
echo 'O|'
"#;

/// Id, and `stop` or `go`. `O|`, `R|WHY` or `X|WHY`.
const SUSPEND: &str = r#"id=$1
state=$(squeue -h -t all -j "$id" -O 'State:|' 2>&1) || { case $state in *"Invalid job id"*) echo 'O|';; *) echo "X|$(flat "$state")";; esac; exit 0; }
said=
case $2,$state in
  stop,*RUNNING*) said=$(scontrol suspend "$id" 2>&1) || said=$(scancel --full -s STOP "$id" 2>&1) || { echo "R|$(flat "$said")"; exit 0; } ;;
  go,*SUSPENDED*) said=$(scontrol resume "$id" 2>&1) || { echo "R|$(flat "$said")"; exit 0; } ;;
  go,*STOPPED*) said=$(scancel --full -s CONT "$id" 2>&1) || { echo "R|$(flat "$said")"; exit 0; } ;;
esac
case $2,$state in
  stop,*PENDING*) said=$(scontrol hold "$id" 2>&1) || { echo "R|$(flat "$said")"; exit 0; } ;;
  go,*PENDING*) said=$(scontrol release "$id" 2>&1) || { echo "R|$(flat "$said")"; exit 0; } ;;
esac
echo 'O|'
"#;

/// `V|VERSION`, and `K|NAME` for each job whose files are kept; sweeps what broken submissions left long ago.
const KEPT: &str = r#"said=$(squeue --version 2>&1) || { echo "X|$(flat "$said")"; exit 0; }
echo "V|$said"
cd "$root" 2>/dev/null || exit 0
find . -maxdepth 1 -name '.mk8s-*' -mmin +60 -exec rm -rf {} + 2>/dev/null
for f in mk8s-*; do [ ! -d "$f" ] || echo "K|$f"; done
"#;

/// Removes the directory of all, where nothing of jobs is in it. `O|`, or `W|WHY`.
const LEAVE: &str = r#"[ -d "$root" ] || { echo 'O|'; exit 0; }
find "$root" -maxdepth 1 -name '.mk8s-*' -exec rm -rf {} + 2>/dev/null
why=$(rmdir "$root" 2>&1) || { echo "W|$(flat "$why")"; exit 0; }
echo 'O|'
"#;

/// A text for the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Submit,
    Find,
    Poll,
    Files,
    Read,
    Cancel,
    Suspend,
    Kept,
    Leave,
}

impl Text {
    /// The whole script.
    pub(super) fn script(self) -> String {
        let body = match self {
            Self::Submit => SUBMIT,
            Self::Find => FIND,
            Self::Poll => POLL,
            Self::Files => FILES,
            Self::Read => READ,
            Self::Cancel => CANCEL,
            Self::Suspend => SUSPEND,
            Self::Kept => KEPT,
            Self::Leave => LEAVE,
        };
        format!("{HEAD}{body}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    /// Runs a text with programs of Slurm that pretend.
    fn run(text: Text, programs: &[(&str, &str)], root: &str, args: &[&str], input: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        for (name, body) in programs {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.arg("-c").arg(text.script()).arg("minik8s").arg(root).args(args).env("PATH", path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_query_may_be_about_more_than_an_argument_holds() {
        // Every second job is in the queue; accounting is asked for the others.
        let squeue = r#"for id in $(seq 2 2 5000); do echo "$id|N/A|RUNNING|1|2|n1|x|0|None|"; done"#;
        let sacct =
            r#"while [ "$1" != -j ]; do shift; done; echo "$2" | tr , '\n' | sed 's/$/|COMPLETED|0:0|n1|1|2|x/'"#;
        let id = "0123456789-0123456789-0123456789-0123456789";
        let list: String = (1..=5000).map(|number| format!("mk8s-{id}-1 {number}\n")).collect();
        assert!(list.len() > 128 << 10);
        let root = tempfile::tempdir().unwrap();
        let out = run(
            Text::Poll,
            &[("squeue", squeue), ("sacct", sacct), ("scontrol", "exit 1")],
            &root.path().display().to_string(),
            &[],
            &list,
        );
        let rows = |kind: &str| out.lines().filter(|line| line.starts_with(kind)).count();
        assert_eq!((rows("Q|"), rows("S|")), (2500, 2500));
        assert!(out.contains("S|1|COMPLETED") && !out.contains("S|2|COMPLETED"));
    }

    #[test]
    fn a_full_disk_is_told_and_nothing_is_handed_over() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().display().to_string();
        let full = ("tar", "cat >/dev/null; echo 'tar: x: Cannot write: No space left on device' >&2; exit 2");
        let sbatch = ("sbatch", "echo 12");
        let out = run(Text::Submit, &[full, sbatch], &at, &["mk8s-a-1", "60", ""], "x");
        assert_eq!(out, "D|tar: x: Cannot write: No space left on device\n");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "what was begun is gone");
        let file = root.path().join("a-file");
        std::fs::write(&file, "").unwrap();
        let out = run(Text::Submit, &[sbatch], &file.display().to_string(), &["mk8s-a-1", "60", ""], "");
        assert!(out.starts_with("D|mkdir:"), "{out}");
    }

    #[test]
    fn files_that_stay_are_told() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("mk8s-a-1")).unwrap();
        let at = root.path().display().to_string();
        let cannot = ("mv", "echo 'mv: permission denied' >&2; exit 1");
        let scancel = ("scancel", "exit 0");
        assert_eq!(run(Text::Cancel, &[cannot, scancel], &at, &["mk8s-a-1", "yes"], ""), "W|mv: permission denied\n");
        assert!(run(Text::Leave, &[], &at, &[], "").starts_with("W|"), "a job is there");
        assert_eq!(run(Text::Cancel, &[scancel], &at, &["mk8s-a-1", "yes"], ""), "O|\n");
        std::fs::create_dir(root.path().join(".mk8s-a-1.gone.7")).unwrap();
        assert_eq!(run(Text::Leave, &[], &at, &[], ""), "O|\n");
        assert_eq!((root.path().exists(), run(Text::Leave, &[], &at, &[], "")), (false, "O|\n".to_owned()));
    }
}
