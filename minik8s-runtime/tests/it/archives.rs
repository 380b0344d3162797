//! Archives in the forms that other tools write.

use crate::harness::{Harness, able, busybox};
use flate2::Compression;
use flate2::write::GzEncoder;
use minik8s_core::runtime::{ContainerState, Containers, Images, RuntimeError, Sandboxes};
use minik8s_core::testkit::wait::until;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "docker.io/library/saved:1";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Configuration and layer (not compressed) of the test image.
fn parts() -> (Value, Vec<u8>) {
    let mut entries = HashMap::new();
    let mut tar = tar::Archive::new(std::fs::File::open(busybox()).expect("archive"));
    for entry in tar.entries().expect("entries") {
        let mut entry = entry.expect("entry");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("read");
        entries.insert(entry.path().expect("path").to_string_lossy().into_owned(), bytes);
    }
    let read = |digest: &Value| {
        let digest = digest.as_str().expect("digest").replace("sha256:", "blobs/sha256/");
        entries.get(&digest).expect("blob").clone()
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("json");
    let index = json(entries.get("index.json").expect("index"));
    let manifest = json(&read(&index["manifests"][0]["digest"]));
    let layer = read(&manifest["layers"][0]["digest"]);
    let mut plain = Vec::new();
    if layer.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(layer.as_slice()).read_to_end(&mut plain).expect("decompress");
    } else {
        plain = layer;
    }
    (json(&read(&manifest["config"]["digest"])), plain)
}

fn tar_of(entries: &[(&str, Vec<u8>)], links: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).expect("entry");
    }
    for (name, to) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, to).expect("link");
    }
    tar.into_inner().expect("archive")
}

/// What `docker save` writes: a configuration, a directory per layer, and `manifest.json`. The second layer is a file
/// of its own, and the third is the second again, which docker writes as a link.
fn saved(squeeze: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let (mut config, base) = parts();
    let extra = tar_of(&[("etc/extra", b"from the second layer\n".to_vec())], &[]);
    let diffs: Vec<String> = [&base, &extra, &extra].map(|l| format!("sha256:{}", hex(l))).into();
    config["rootfs"] = json!({"type": "layers", "diff_ids": diffs});
    let config = serde_json::to_vec(&config).expect("config");
    let config_name = format!("{}.json", hex(&config));
    let layers = ["1/layer.tar", "2/layer.tar", "3/layer.tar"];
    let manifest =
        json!([{"Config": config_name, "RepoTags": [NAME.replace("docker.io/library/", "")], "Layers": layers}]);
    let entries = [
        (config_name.as_str(), config),
        (layers[0], squeeze(&base)),
        (layers[1], squeeze(&extra)),
        ("1/VERSION", b"1.0".to_vec()),
        ("manifest.json", manifest.to_string().into_bytes()),
        ("repositories", b"{}".to_vec()),
    ];
    tar_of(&entries, &[(layers[2], "../2/layer.tar")])
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("archive");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_docker_run_whatever_is_compressed_in_them() {
    if !able() {
        return;
    }
    let h = Harness::start().await;
    h.sandbox("pod").await;
    let plain = saved(<[u8]>::to_vec);
    let cases =
        [("plain", plain.clone()), ("layers", saved(gzip)), ("whole", gzip(&plain)), ("both", gzip(&saved(gzip)))];
    for (name, bytes) in cases {
        let archive = write(h.dir.path(), name, &bytes);
        let images = h.runtime.import(archive, None).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(images.iter().flat_map(|i| &i.names).collect::<Vec<_>>(), [NAME], "{name}");
        let mut spec = h.script(name, "cat /etc/extra");
        spec.image = NAME.into();
        h.run("pod", &spec).await;
        until("it has ended", Duration::from_secs(30), || async {
            let info = h.runtime.container(name).await.expect("container").expect("it is there");
            matches!(info.state, ContainerState::Exited(_)).then_some(())
        })
        .await;
        let log = std::fs::read_to_string(&spec.log_path).expect("log");
        assert!(log.contains("from the second layer"), "{name}: {log}");
        h.runtime.remove_container(name).await.expect("remove");
        h.runtime.remove_image(NAME).await.expect("remove");
    }
    let spooled = std::fs::read_dir(h.config.root.join("spool")).map_or(0, Iterator::count);
    assert_eq!(spooled, 0, "decompressed copies are left");
    h.runtime.remove_sandbox("pod").await.expect("remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_are_torn_or_lie_are_refused_and_leave_no_image() {
    if !able() {
        return;
    }
    let h = Harness::start().await;
    let whole = saved(<[u8]>::to_vec);
    let (config, base) = parts();
    let entries = |layers: Value| {
        let config = config.to_string().into_bytes();
        let manifest = json!([{"Config": "c.json", "RepoTags": ["saved:1"], "Layers": layers}]);
        let other = tar_of(&[("etc/other", b"not what the configuration says".to_vec())], &[]);
        let parts = [("c.json", config), ("a/layer.tar", other), ("manifest.json", manifest.to_string().into_bytes())];
        tar_of(&parts, &[])
    };
    drop(base);
    let zipped = gzip(&whole);
    // archive, part of the refusal
    let table: [(&str, Vec<u8>, &str); 5] = [
        ("empty", Vec::new(), "neither"),
        ("torn", whole[..whole.len() / 2].to_vec(), ""),
        ("torn-gzip", zipped[..zipped.len() / 2].to_vec(), ""),
        ("lies", entries(json!(["a/layer.tar"])), "unpacks to"),
        ("lacks", entries(json!(["b/layer.tar"])), "lacks b/layer.tar"),
    ];
    for (name, bytes, part) in table {
        let archive = write(h.dir.path(), name, &bytes);
        let error = h.runtime.import(archive, None).await.expect_err(name);
        assert!(matches!(error, RuntimeError::Invalid(_)) && error.to_string().contains(part), "{name}: {error}");
        assert_eq!(h.runtime.images().await.expect("images"), [], "{name}");
    }
}
