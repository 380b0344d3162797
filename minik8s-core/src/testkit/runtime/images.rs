//! Images.

use super::scope::Scope;
use crate::runtime::RuntimeError;

pub(super) async fn a_missing_image_is_none_and_a_broken_name_an_error(s: &mut Scope) {
    assert_eq!(s.runtime.image("localhost/not-there:1").await.expect("image"), None);
    for name in ["", "UPPER/case", "a//b", "has blank"] {
        let refused = s.runtime.image(name).await.expect_err(name);
        assert!(matches!(refused, RuntimeError::InvalidImageName { .. }), "{name:?}: {refused}");
    }
}

pub(super) async fn an_image_is_found_by_name_and_by_id(s: &mut Scope) {
    let image = s.runtime.image(s.image()).await.expect("image").expect("there");
    assert!(image.names.iter().any(|n| n == s.image()), "{image:?}");
    assert!(image.id.starts_with("sha256:") && image.size > 0, "{image:?}");
    assert_eq!(s.runtime.image(&image.id).await.expect("by id"), Some(image.clone()));
    for digest in &image.repo_digests {
        assert_eq!(s.runtime.image(digest).await.expect("by digest").map(|i| i.id), Some(image.id.clone()));
    }
    assert!(s.runtime.images().await.expect("list").contains(&image));
}

pub(super) async fn a_pull_that_cannot_work_says_why(s: &mut Scope) {
    let real = s.runtime.capabilities().await.expect("capabilities").real_processes;
    let name = if real { "127.0.0.1:1/not/there:1" } else { "registry.invalid/not/there:1" };
    let refused = s.runtime.pull(name, None, None).await.expect_err("nobody listens");
    assert!(matches!(&refused, RuntimeError::Pull { image, .. } if image == name), "{refused:?}");
    let broken = s.runtime.pull("UPPER/case", None, None).await.expect_err("broken name");
    assert!(matches!(broken, RuntimeError::InvalidImageName { .. }), "{broken:?}");
    assert_eq!(s.runtime.image(name).await.expect("image"), None);
}

pub(super) async fn an_archive_is_imported_under_another_name_and_removed(s: &mut Scope) {
    let name = format!("localhost/{}:v1", s.id("copy"));
    for _ in 0..2 {
        let imported = s.runtime.import(s.archive(), Some(&name)).await.expect("import");
        assert!(imported.len() == 1 && imported[0].names.contains(&name), "{imported:?}");
        assert!(s.runtime.image(&name).await.expect("image").is_some());
    }
    for _ in 0..2 {
        s.runtime.remove_image(&name).await.expect("remove");
        assert_eq!(s.runtime.image(&name).await.expect("image"), None);
    }
    let sandbox = s.sandbox("a").await;
    let (exit, _) = s.run(&sandbox, &s.script("c", "exit 0")).await;
    assert_eq!(exit.code, 0, "the other name is untouched");
}

pub(super) async fn a_missing_archive_is_named(s: &mut Scope) {
    let path = s.dir.path().join("not-there.tar");
    let refused = s.runtime.import(path, Some("localhost/x:1")).await.expect_err("missing");
    assert!(refused.to_string().contains("not-there.tar"), "{refused}");
}
