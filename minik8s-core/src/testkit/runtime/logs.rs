//! Logs of containers.

use super::scope::{SOON, Scope};
use crate::testkit::wait::until;

pub(super) async fn entries_are_in_order_and_carry_time_and_stream(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "echo one; echo bad >&2; echo two; echo three");
    s.run(&sandbox, &spec).await;
    assert_eq!(s.printed(&spec, "stdout"), "one\ntwo\nthree\n");
    assert_eq!(s.printed(&spec, "stderr"), "bad\n");
    assert!(s.entries(&spec).iter().all(|(_, tag, _)| tag == "F"));
}

pub(super) async fn a_last_line_without_an_end_is_kept(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "printf 'one\\ntorn'");
    s.run(&sandbox, &spec).await;
    assert_eq!(s.printed(&spec, "stdout"), "one\ntorn\n");
}

pub(super) async fn long_lines_are_split_and_marked(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short");
    s.run(&sandbox, &spec).await;
    let entries = s.entries(&spec);
    let tags: String = entries.iter().map(|(_, tag, _)| tag.as_str()).collect();
    assert!(tags.starts_with('P') && tags.ends_with("FF"), "{tags}");
    assert_eq!(s.printed(&spec, "stdout"), format!("{}\nshort\n", "x".repeat(40_000)));
}

pub(super) async fn a_log_is_rotated_and_loses_nothing(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let mut spec = s.script("c", "i=0; while [ $i -lt 2000 ]; do echo line-$i; i=$((i+1)); done");
    spec.log_max_bytes = 20_000;
    spec.log_max_files = 20;
    s.run(&sandbox, &spec).await;
    let file = |n: u32| match n {
        0 => spec.log_path.clone(),
        n => format!("{}.{n}", spec.log_path.display()).into(),
    };
    let texts: Vec<String> = (0..20).rev().filter_map(|n| std::fs::read_to_string(file(n)).ok()).collect();
    assert!(texts.len() > 3 && texts.iter().all(|t| t.len() <= 20_000), "{} files", texts.len());
    let lines: Vec<String> = texts.concat().lines().filter_map(|l| Some(l.rsplit_once(' ')?.1.to_owned())).collect();
    assert_eq!(lines, (0..2000).map(|n| format!("line-{n}")).collect::<Vec<_>>());
}

pub(super) async fn a_log_goes_on_while_the_runtime_is_away(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "i=0; while :; do echo tick-$i; i=$((i+1)); sleep 0.02; done");
    s.start(&sandbox, &spec).await;
    s.wait_printed(&spec, "tick-1").await;
    s.reopen().await;
    let before = s.entries(&spec).len();
    until("more lines have come", SOON, || async { (s.entries(&spec).len() > before + 5).then_some(()) }).await;
}
