use super::*;
use std::io::Write;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(60);

struct Log {
    dir: tempfile::TempDir,
    ended: CancellationToken,
}

impl Log {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), ended: CancellationToken::new() }
    }

    fn write(&self, file: &str, lines: &[&str]) {
        let path = self.dir.path().join(file);
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        for line in lines {
            let (second, rest) = line.split_once(' ').unwrap();
            writeln!(file, "2026-01-01T00:00:{second:0>2}.000000001Z {rest}").unwrap();
        }
    }

    fn read(&self, options: LogOptions) -> BoxStream<'static, ApiResult<Bytes>> {
        let life = find(self.dir.path(), options.previous).unwrap();
        let ended = self.ended.clone();
        read(life, options, Box::new(|| Box::pin(ended.cancelled_owned())))
    }

    async fn text(&self, options: LogOptions) -> String {
        let chunks: Vec<_> = self.read(options).collect().await;
        chunks.into_iter().map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).collect()
    }
}

async fn more(stream: &mut BoxStream<'static, ApiResult<Bytes>>) -> String {
    let chunk = tokio::time::timeout(BOUND, stream.next()).await.expect("news within the bound");
    chunk.map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn lines_are_chosen_and_spelled_as_asked() {
    let log = Log::new();
    log.write("0.log", &["1 stdout F old"]);
    log.write("1.log.1", &["2 stdout F a", "3 stderr F b"]);
    log.write("1.log", &["4 stdout P c", "4 stdout F c2", "5 stdout F d e"]);
    let options = LogOptions::default;
    for (options, want) in [
        (options(), "a\nb\ncc2\nd e\n"),
        (LogOptions { tail_lines: Some(2), ..options() }, "cc2\nd e\n"),
        (LogOptions { tail_lines: Some(3), ..options() }, "b\ncc2\nd e\n"),
        (LogOptions { tail_lines: Some(0), ..options() }, ""),
        (LogOptions { tail_lines: Some(99), ..options() }, "a\nb\ncc2\nd e\n"),
        (LogOptions { limit_bytes: Some(5), ..options() }, "a\nb\nc"),
        (LogOptions { previous: true, ..options() }, "old\n"),
        (LogOptions { since: Some(1_767_225_605_000_000_000), ..options() }, "d e\n"),
        (
            LogOptions { timestamps: true, tail_lines: Some(2), ..options() },
            "2026-01-01T00:00:04.000000001Z cc2\n2026-01-01T00:00:05.000000001Z d e\n",
        ),
    ] {
        assert_eq!(log.text(options.clone()).await, want, "{options:?}");
    }
    assert_eq!(find(&log.dir.path().join("none"), false), None);
}

#[test]
fn a_life_whose_file_is_just_being_rotated_is_still_the_last() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["0.log", "0.log.1", "1.log.1"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let attempt = |previous| find(dir.path(), previous).map(|life| life.attempt);
    assert_eq!([attempt(false), attempt(true)], [Some(1), Some(0)]);
}

#[tokio::test]
async fn following_sees_new_lines_rotation_and_the_end() {
    let log = Log::new();
    log.write("0.log", &["1 stdout F a"]);
    let mut stream = log.read(LogOptions { follow: true, ..LogOptions::default() });
    assert_eq!(more(&mut stream).await, "a\n");
    log.write("0.log", &["2 stdout F b"]);
    assert_eq!(more(&mut stream).await, "b\n");
    let path = log.dir.path().join("0.log");
    std::fs::rename(&path, log.dir.path().join("0.log.1")).unwrap();
    log.write("0.log", &["3 stdout F c"]);
    assert_eq!(more(&mut stream).await, "c\n");
    log.write("0.log", &["4 stdout F d"]);
    log.ended.cancel();
    let mut rest = String::new();
    while let Some(chunk) = tokio::time::timeout(BOUND, stream.next()).await.unwrap() {
        rest.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    assert_eq!(rest, "d\n");
}

#[tokio::test]
async fn a_follower_that_is_late_misses_no_rotation() {
    let log = Log::new();
    let path = |name: &str| log.dir.path().join(name);
    log.write("0.log", &["1 stdout F a"]);
    let mut stream = log.read(LogOptions { follow: true, ..LogOptions::default() });
    assert_eq!(more(&mut stream).await, "a\n");
    // All before the follower can look: this test has one thread and does not wait.
    log.write("0.log", &["2 stdout F b"]);
    for (n, letter) in [(3, "c"), (4, "d"), (5, "e")] {
        for number in (1..5).rev() {
            let _ = std::fs::rename(path(&format!("0.log.{number}")), path(&format!("0.log.{}", number + 1)));
        }
        std::fs::rename(path("0.log"), path("0.log.1")).unwrap();
        log.write("0.log", &[&format!("{n} stdout F {letter}")]);
    }
    log.ended.cancel();
    let mut text = String::new();
    while text.len() < 8 {
        let part = more(&mut stream).await;
        assert!(!part.is_empty(), "ended early: {text:?}");
        text += &part;
    }
    assert_eq!(text, "b\nc\nd\ne\n");
    assert_eq!(more(&mut stream).await, "");
}

#[tokio::test]
async fn where_a_rotation_went_too_far_the_oldest_file_goes_on() {
    let log = Log::new();
    log.write("0.log", &["1 stdout F a"]);
    let mut stream = log.read(LogOptions { follow: true, ..LogOptions::default() });
    assert_eq!(more(&mut stream).await, "a\n");
    std::fs::remove_file(log.dir.path().join("0.log")).unwrap();
    log.write("0.log.2", &["3 stdout F c"]);
    log.write("0.log", &["4 stdout F d"]);
    log.ended.cancel();
    let mut text = String::new();
    while text.len() < 4 {
        text += &more(&mut stream).await;
    }
    assert_eq!(text, "c\nd\n");
}
