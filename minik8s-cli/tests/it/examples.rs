//! Every manifest that users are shown is taken by a cluster as it stands there: files of `examples/`, and blocks of the
//! guides.

use super::harness::{Kind, Up};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files below a directory that end so.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path, ending)),
            false if path.extension().is_some_and(|is| is == ending) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// Blocks of YAML within a page that are manifests: configuration of other programs is none.
fn blocks(page: &str) -> Vec<&str> {
    let all = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    all.filter(|block| block.contains("apiVersion:") && block.contains("kind:")).collect()
}

#[test]
fn every_manifest_that_users_are_shown_is_taken() {
    let Some(up) = Up::start_with(Kind::Fake, &["--node-name", "node-1", "--local-jobs"]) else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let mut manifests = BTreeMap::new();
    for path in files(&root.join("examples"), "yaml") {
        manifests.insert(path.display().to_string(), read(&path));
    }
    let pages = [files(&root.join("docs"), "md"), vec![root.join("README.md")]].concat();
    let mut by_page = BTreeMap::new();
    for path in pages {
        let (page, name) = (read(&path), path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let found = blocks(&page);
        by_page.insert(name.clone(), found.len());
        for (index, block) in found.into_iter().enumerate() {
            manifests.insert(format!("{name}, manifest {}", index + 1), block.to_owned());
        }
    }
    assert!(by_page["workflows.md"] >= 4 && by_page["README.md"] >= 1, "{by_page:?}");
    assert!(manifests.keys().filter(|name| name.contains("examples")).count() >= 4, "{:?}", manifests.keys());
    let mut wrong = Vec::new();
    for (name, text) in &manifests {
        let told = up.minik8s_with(&["apply", "-f", "-"], text);
        if told.code != 0 || told.err.contains("warning") {
            wrong.push(format!("{name}: {}{}", told.err, told.out));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Directories of jobs go another way.
    let jobs: Vec<PathBuf> = files(&root.join("examples"), "yaml");
    let jobs = jobs.iter().filter(|path| path.file_name().is_some_and(|name| name == "job.yaml"));
    for job in jobs {
        assert!(job.parent().is_some_and(|directory| directory.join("Makefile").exists()), "{}", job.display());
    }
}
