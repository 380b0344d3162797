//! Images of functions on a real node: they go when no function may go back to them.

use super::functions::{F1, F2, F3, call, code, get, ready, with_function};
use super::harness::{IMAGE, Kind, Up, until_or};
use minik8s_core::testkit::need::{self, Need};

const DATA: &str = r#"{"x": 1, "y": 2}"#;

/// The image of a function's newest revision.
fn newest(up: &Up, function: &str) -> (String, String) {
    let revision = get(up, &format!("function/{function}"), "{.status.revision}");
    let image = get(up, &format!("functionrevision/{revision}"), "{.status.image}");
    assert!(image.starts_with(&format!("minik8s.internal/functions/default/{function}@sha256:")), "{image}");
    (revision, image)
}

#[test]
fn images_of_functions_leave_the_node_when_nobody_can_go_back_to_them() {
    if !need::met(&[Need::Program("python3"), Need::Program("curl")]) {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    if !with_function(&up, "f", F1, &["--idle", "1"]) {
        return;
    }
    let listed = || up.minik8s(&["image", "list"]).ok();
    let asked = |function: &str| call(&up, &format!("/function/default/{function}"), DATA);
    up.minik8s(&["function", "create", "other", "-f", &code(&up, "other", F2), "--idle", "1"]).ok();
    assert_eq!(asked("f"), (200, r#"{"x": -1, "y": 1}"#.to_owned()));
    let mut all = vec![newest(&up, "f")];
    for (name, text) in [("f2", F2), ("f3", F3)] {
        up.minik8s(&["function", "update", "f", "-f", &code(&up, name, text)]).ok();
        ready(&up, "f");
        assert_eq!(asked("f").0, 200);
        all.push(newest(&up, "f"));
    }
    let (_, others) = newest(&up, "other");
    let [(first, oldest), (_, before), (_, last)] = &all[..] else { panic!("{all:?}") };
    let has = |image: &str| listed().contains(image);
    for image in [oldest, before, last] {
        assert!(has(image), "{image} is not here:\n{}", listed());
    }
    up.minik8s(&["delete", "functionrevision", first]).ok();
    until_or(240, || !has(oldest), || format!("the image of a revision that is gone is gone:\n{}", listed()));
    assert!(has(before) && has(last), "others of the function stay:\n{}", listed());
    up.minik8s(&["function", "delete", "f"]).ok();
    until_or(240, || !has(before) && !has(last), || format!("those of a function that is gone go:\n{}", listed()));
    assert!(has(&others) && has(IMAGE), "what others need stays:\n{}", listed());
    // Made anew, of what the node had before.
    up.minik8s(&["function", "create", "f", "-f", &code(&up, "f", F1), "--idle", "1"]).ok();
    assert_eq!(asked("f"), (200, r#"{"x": -1, "y": 1}"#.to_owned()));
    assert_eq!(&newest(&up, "f").1, oldest, "the same files are the same image");
    assert_eq!(asked("other").0, 200);
}
