//! What jobs write and read.

use super::scope::{Scope, source};
use crate::job::{EndReason, FileName, MOST_RESULTS, STDOUT, digest};

pub(super) async fn output_is_read_while_it_grows_and_afterwards(scope: &mut Scope) {
    let job = scope.submit("echo first\nsleep 1\necho second").await;
    let grown = |report: &crate::job::JobReport| {
        let size = report.output.iter().find(|(name, _)| name.as_str() == STDOUT);
        !report.state.is_ended() && size.is_some_and(|(_, size)| *size == 6)
    };
    scope.reaches(&job, "a part of the output is told while the job runs", grown).await;
    let now = scope.text(&job, "stdout").await;
    assert!(now.starts_with("first\n") && "first\nsecond\n".starts_with(&now), "{now:?}");
    scope.ends(&job).await;
    assert_eq!(scope.text(&job, "stdout").await, "first\nsecond\n");
}

pub(super) async fn output_is_read_from_any_offset(scope: &mut Scope) {
    let job = scope.submit("echo 0123456789").await;
    scope.ends(&job).await;
    let stdout = FileName::new(STDOUT).unwrap();
    for (from, most, want) in [(0, 4, "0123"), (4, 100, "456789\n"), (11, 5, ""), (4_000_000_000, 5, ""), (0, 0, "")] {
        let read = scope.backend.read(&job, &stdout, from, most).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&read), want, "{most} bytes from {from}");
    }
    let absent = FileName::new("results/absent").unwrap();
    assert!(scope.backend.read(&job, &absent, 0, 10).await.unwrap().is_empty());
}

pub(super) async fn errors_are_kept_apart_from_output(scope: &mut Scope) {
    let job = scope.submit("echo good\necho bad >&2").await;
    scope.ends(&job).await;
    assert_eq!(scope.text(&job, "stdout").await, "good\n");
    assert_eq!(scope.text(&job, "stderr").await, "bad\n");
}

pub(super) async fn source_files_are_there_and_executable(scope: &mut Scope) {
    let mut request = scope.request("cat data/a.txt\ncat 'data/b c.txt'");
    request.source = vec![source("data/a.txt", "a\n", false), source("data/b c.txt", "b c\n", true)];
    let job = scope.backend.submit(&request).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::Completed);
    assert_eq!(scope.text(&job, "stdout").await, "a\nb c\n");
}

pub(super) async fn results_are_complete_and_carry_digests(scope: &mut Scope) {
    let job = scope
        .submit("mkdir -p out\necho 1 > out/a.txt\necho 2 > out/b.txt\necho 3 > out/c.bin\necho 4 > top.txt")
        .await;
    scope.ends(&job).await;
    let patterns = ["out/*.txt".to_owned(), "top.*".to_owned(), "none/*".to_owned()];
    let files = scope.backend.files(&job, &patterns).await.unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["results/out/a.txt", "results/out/b.txt", "results/top.txt", "stderr", "stdout"]);
    for file in &files {
        let content = scope.content(&job, file.name.as_str()).await;
        assert_eq!((content.len() as u64, digest(&content)), (file.size, file.sha256.clone()), "{}", file.name);
    }
    assert_eq!(scope.text(&job, "results/out/b.txt").await, "2\n");
}

pub(super) async fn links_and_what_lies_outside_are_left_out(scope: &mut Scope) {
    let job = scope.submit("echo mine > own\nln -s /etc/passwd stolen\nln -s / root").await;
    assert_eq!(scope.ends(&job).await.reason, EndReason::Completed);
    let patterns = ["*".to_owned(), "root/etc/passwd".to_owned(), "root/etc/host*".to_owned()];
    let files = scope.backend.files(&job, &patterns).await.unwrap();
    let names: Vec<&str> = files.iter().filter_map(|file| file.name.result()).collect();
    assert_eq!(names, ["own"]);
    for name in ["results/stolen", "results/root/etc/passwd"] {
        assert_eq!(scope.text(&job, name).await, "", "{name} leads out");
    }
}

pub(super) async fn more_results_than_may_be_are_told_by_one(scope: &mut Scope) {
    let mut request = scope.request("echo done");
    request.source = (0..MOST_RESULTS + 5).map(|number| source(&format!("many/{number}"), "x", false)).collect();
    let job = scope.backend.submit(&request).await.unwrap();
    scope.ends(&job).await;
    let files = scope.backend.files(&job, &["many/*".to_owned()]).await.unwrap();
    assert_eq!(files.iter().filter(|file| file.name.result().is_some()).count(), MOST_RESULTS + 1);
    assert!(files.iter().any(|file| file.name.as_str() == STDOUT), "output is listed however many results there are");
}

pub(super) async fn hostile_texts_arrive_as_they_are(scope: &mut Scope) {
    let nasty = "a'b\"c $(touch /tmp/minik8s-owned) `id` ${HOME} \\ ; | & < > * ? ~ # ! é\ttab";
    let lines = "line one\nline two\n\n 'three'";
    let mut request = scope.request("printf %s \"$NASTY\"\necho\nprintf %s \"$LINES_OF_IT\"");
    request.env.insert("NASTY".to_owned(), nasty.to_owned());
    request.env.insert("LINES_OF_IT".to_owned(), lines.to_owned());
    request.source = vec![source("it's $(odd) `name`; *", "x", false)];
    let job = scope.backend.submit(&request).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::Completed);
    assert_eq!(scope.text(&job, "stdout").await, format!("{nasty}\n{lines}"));
    let files = scope.backend.files(&job, &["it*".to_owned()]).await.unwrap();
    assert!(files.iter().any(|file| file.name.result() == Some("it's $(odd) `name`; *")), "{files:?}");
}

pub(super) async fn a_large_output_is_read_in_pieces(scope: &mut Scope) {
    let mut request = scope.request("cat large");
    let content = "0123456789abcde\n".repeat(1 << 16);
    request.source = vec![source("large", &content, false)];
    let job = scope.backend.submit(&request).await.unwrap();
    scope.ends(&job).await;
    let files = scope.backend.files(&job, &[]).await.unwrap();
    let stdout = files.iter().find(|file| file.name.as_str() == STDOUT).expect("listed");
    assert_eq!((stdout.size, stdout.sha256.clone()), (1 << 20, digest(content.as_bytes())));
    assert!(scope.content(&job, "stdout").await == content.as_bytes(), "the same bytes");
}
