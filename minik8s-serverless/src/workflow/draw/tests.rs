//! Pictures are looked at by people; what can be tested is that nothing lies on anything else, and that all is there.

use super::layout::{Layout, Metrics, Rect, layout};
use super::scene::scene;
use super::*;
use crate::workflow::{compile, spec::WorkflowSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn workflow(spec: Value) -> crate::workflow::program::Workflow {
    compile(&serde_json::from_value::<WorkflowSpec>(spec).unwrap()).unwrap_or_else(|e| panic!("{e:?}"))
}

pub(super) fn order() -> Value {
    let task = |name: &str, function: &str, next: &str| json!({"name": name, "task": {"function": {"name": function}}, "next": next});
    let last =
        |name: &str, function: &str| json!({"name": name, "task": {"function": {"name": function}}, "end": true});
    let mut charge = task("charge", "charge-card", "enough");
    charge["retry"] = json!([{"errors": ["Unavailable"]}]);
    charge["catch"] = json!([{"errors": ["CardDeclined"], "next": "tell"}]);
    json!({"startAt": "check", "steps": [
        task("check", "check-order", "both"),
        {"name": "both", "parallel": {"branches": [
            {"startAt": "stock", "steps": [last("stock", "reserve-stock")]},
            {"startAt": "price", "steps": [task("price", "price-order", "tax"), last("tax", "add-tax")]}]}, "next": "charge"},
        charge,
        {"name": "enough", "choice": {"rules": [{"when": "input.total > 100", "next": "gift"}, {"check": "NumberLess", "variable": "total", "value": 1, "next": "wait"}], "default": "ship"}},
        {"name": "wait", "wait": {"seconds": 60}, "next": "check"},
        task("gift", "wrap-gift", "ship"),
        {"name": "ship", "map": {"itemsPath": "$.items", "maxConcurrency": 4, "startAt": "pack", "steps": [task("pack", "pack-item", "label"), last("label", "print-label")]}, "next": "done"},
        {"name": "done", "succeed": {}},
        {"name": "tell", "task": {"http": {"url": "http://mail.example/send"}}, "next": "refused"},
        {"name": "refused", "fail": {"error": "CardDeclined"}}]})
}

fn apart(a: Rect, b: Rect) -> bool {
    a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y
}

fn check(plan: &Layout, around: Rect) {
    for (i, a) in plan.boxes.iter().enumerate() {
        assert!(
            a.x >= 0 && a.y >= 0 && a.x + a.w <= plan.w && a.y + a.h <= plan.h,
            "{a:?} is within {}×{}",
            plan.w,
            plan.h
        );
        assert!(plan.boxes[i + 1..].iter().all(|b| apart(*a, *b)), "boxes touch");
        let inner: Vec<Rect> = plan.inner[i].iter().map(|(x, y, l)| Rect { x: *x, y: *y, w: l.w, h: l.h }).collect();
        for (j, b) in inner.iter().enumerate() {
            assert!(b.x > a.x && b.y > a.y && b.x + b.w < a.x + a.w && b.y + b.h < a.y + a.h, "{b:?} is inside {a:?}");
            assert!(inner[j + 1..].iter().all(|c| apart(*b, *c)));
            check(&plan.inner[i][j].2, *b);
        }
    }
    assert!(plan.w <= around.w && plan.h <= around.h);
    // Ways down pass no box but those they join.
    for route in plan.routes.iter().filter(|route| !route.back) {
        for pair in route.points.windows(2).filter(|p| p[0].0 == p[1].0) {
            let (x, from, to) = (pair[0].0, pair[0].1, pair[1].1);
            assert!(
                plan.boxes.iter().all(|b| x <= b.x || x >= b.x + b.w || to <= b.y || from >= b.y + b.h),
                "a way goes through a box"
            );
        }
    }
}

#[test]
fn nothing_lies_on_anything_else() {
    let all = Rect { x: 0, y: 0, w: i32::MAX, h: i32::MAX };
    let metrics = [
        Metrics { char_width: 7, line: 18, pad_x: 14, pad_y: 12, gap_x: 36, gap_y: 52, margin: 20 },
        Metrics { char_width: 1, line: 1, pad_x: 2, pad_y: 1, gap_x: 3, gap_y: 4, margin: 1 },
    ];
    for metrics in metrics {
        let steps = BTreeMap::new();
        check(&layout(&scene(&workflow(order()).body, "", "", &steps), metrics), all);
        let fan: Vec<Value> =
            (0..12).map(|i| json!({"when": format!("input == {i}"), "next": format!("s{i}")})).collect();
        let mut list = vec![json!({"name": "c", "choice": {"rules": fan}})];
        list.extend((0..12).map(|i| json!({"name": format!("s{i}"), "pass": {}, "next": if i % 3 == 0 { "z" } else if i % 3 == 1 { "y" } else { "c" }})));
        list.extend([json!({"name": "y", "pass": {}, "next": "z"}), json!({"name": "z", "succeed": {}})]);
        check(&layout(&scene(&workflow(json!({"startAt": "c", "steps": list})).body, "", "", &steps), metrics), all);
    }
}

fn progress() -> BTreeMap<String, StepProgress> {
    let of = |running, succeeded, caught, retried, error: &str| StepProgress {
        running,
        succeeded,
        caught,
        retried,
        error: error.into(),
        ..StepProgress::default()
    };
    [
        ("check", of(0, 1, 0, 0, "")),
        ("both", of(0, 1, 0, 0, "")),
        ("both[0]/stock", of(0, 1, 0, 0, "")),
        ("both[1]/price", of(0, 1, 0, 0, "")),
        ("both[1]/tax", of(0, 1, 0, 2, "Unavailable")),
        ("charge", of(0, 1, 0, 0, "")),
        ("enough", of(0, 1, 0, 0, "")),
        ("gift", of(0, 1, 0, 0, "")),
        ("ship", of(1, 0, 0, 0, "")),
        ("ship/pack", of(3, 9, 1, 0, "NotFound")),
        ("ship/label", of(1, 8, 0, 0, "")),
    ]
    .into_iter()
    .map(|(name, progress)| (name.to_owned(), progress))
    .collect()
}

#[test]
fn every_step_and_its_state_is_in_both_pictures() {
    let workflow = workflow(order());
    let plain = text(&workflow.body, &progress(), &|_, part| part.to_owned());
    for word in [
        "✓ check",
        "◐ ship",
        "○ refused",
        "✓ tax",
        "pack-item()",
        "total > 100",
        "else",
        "CardDeclined",
        "for each item",
        "9 of 13 done",
        "total < 1",
    ] {
        assert!(plain.contains(word), "{word} is missing in\n{plain}");
    }
    let picture = svg(&workflow.body, "order <1>", &progress());
    for word in ["check-order()", "total &gt; 100", "order &lt;1&gt;", "for each item", "stroke-dasharray"] {
        assert!(picture.contains(word), "{word} is missing");
    }
    assert!(picture.starts_with("<svg") && picture.matches("<rect").count() == 1 + 15);
}

#[test]
fn what_others_wrote_cannot_leave_the_picture() {
    let spec = json!({"startAt": "a", "steps": [{"name": "a", "choice": {"rules": [{"when": "input == '</text><script>\u{7}'", "next": "b"}], "default": "b"}}, {"name": "b", "fail": {"error": "\u{1b}[31m<b>"}}]});
    let workflow = workflow(spec);
    let picture = svg(&workflow.body, "t", &BTreeMap::new());
    assert!(!picture.contains("<script") && !picture.contains('\u{7}') && !picture.contains("<b>"));
    assert!(!text(&workflow.body, &BTreeMap::new(), &|_, p| p.to_owned()).contains('\u{1b}'));
}
