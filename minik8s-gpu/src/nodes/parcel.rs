//! The files of a job on their way to its pod: an archive in Secrets, each of which holds a piece. Pure.

use super::labels;
use super::wrapper;
use crate::archive;
use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use minik8s_core::job::{JobError, JobRequest, JobResult, digest};
use serde_json::{Value, json};
use std::io::Write;

/// Bytes of a piece: what an object may hold, less what surrounds it.
const PIECE: usize = 1_000_000;
/// Pieces, at most: each is a file that a node watches.
const MOST: usize = 256;
/// The entry of a Secret.
const KEY: &str = "part";

/// The files of a job, packed.
pub(super) struct Parcel {
    /// What the names of its Secrets begin with. It follows from the content: what another try at handing the same job over has
    /// packed is never mixed with it.
    prefix: String,
    pieces: Vec<Vec<u8>>,
}

impl Parcel {
    /// Packs them. Takes its time.
    pub(super) fn of(job: &JobRequest) -> JobResult<Self> {
        let refused = |why: String| JobError::Refused { field: Some("source"), why };
        let whole = archive::of_job(job, wrapper::files(job))?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&whole).map_err(|error| refused(error.to_string()))?;
        let packed = packed.finish().map_err(|error| refused(error.to_string()))?;
        let pieces: Vec<Vec<u8>> = packed.chunks(PIECE).map(<[u8]>::to_vec).collect();
        if pieces.len() > MOST {
            let (size, most) = (packed.len(), MOST * PIECE);
            return Err(refused(format!("its files are {size} bytes when they are packed, of which {most} are taken")));
        }
        let prefix = format!("{}-{}", job.id, digest(&packed).get(..10).unwrap_or_default());
        Ok(Self { prefix, pieces })
    }

    fn name(&self, number: usize) -> String {
        format!("{}-{}", self.prefix, number + 1)
    }

    /// The Secrets that hold it.
    pub(super) fn secrets(self, job: &JobRequest, cluster: &str, owner: Option<OwnerReference>) -> Vec<Secret> {
        let names: Vec<String> = (0..self.pieces.len()).map(|number| self.name(number)).collect();
        let secret = |(name, piece): (String, Vec<u8>)| Secret {
            metadata: ObjectMeta {
                name: Some(name),
                labels: Some(labels(&job.id, cluster)),
                owner_references: owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some([(KEY.to_owned(), ByteString(piece))].into()),
            immutable: Some(true),
            ..Secret::default()
        };
        names.into_iter().zip(self.pieces).map(secret).collect()
    }

    /// The volume that shows the pieces, in order of their names.
    pub(super) fn volume(&self, name: &str) -> Value {
        let piece = |number: usize| json!({"secret": {"name": self.name(number), "items": [{"key": KEY, "path": format!("p{number:05}")}]}});
        let sources: Vec<Value> = (0..self.pieces.len()).map(piece).collect();
        json!({"name": name, "projected": {"defaultMode": 0o444, "sources": sources}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use minik8s_core::job::{FileName, SourceFile};

    fn request(bytes: usize) -> JobRequest {
        // Nothing that gzip makes smaller.
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let content: Bytes = (0..bytes).map(|_| next()).collect::<Vec<u8>>().into();
        let source = vec![SourceFile { name: FileName::new("data").unwrap(), content, executable: false }];
        JobRequest { run: "true".to_owned(), source, ..JobRequest::default() }
    }

    #[test]
    fn pieces_fit_into_objects_and_are_named_by_what_is_in_them() {
        let job = request(2_500_000);
        let parcel = Parcel::of(&job).unwrap();
        let volume = parcel.volume("parcel");
        let secrets = parcel.secrets(&job, "c", None);
        let sources = volume["projected"]["sources"].as_array().unwrap();
        assert_eq!((secrets.len(), sources.len()), (3, 3));
        for (secret, source) in secrets.iter().zip(sources) {
            assert_eq!(secret.metadata.name.as_deref(), source["secret"]["name"].as_str());
            assert!(secret.data.as_ref().unwrap()[KEY].0.len() <= PIECE);
        }
        assert!(sources[0]["secret"]["items"][0]["path"].as_str() < sources[1]["secret"]["items"][0]["path"].as_str());
        let other = Parcel::of(&request(2_500_001)).unwrap();
        assert_ne!(other.name(0), sources[0]["secret"]["name"].as_str().unwrap());
        assert_eq!(Parcel::of(&job).unwrap().volume("parcel"), volume, "the same once more");
    }

    #[test]
    fn the_files_come_back_as_they_were() {
        let job = request(1_200_000);
        let secrets = Parcel::of(&job).unwrap().secrets(&job, "c", None);
        let packed: Vec<u8> = secrets.into_iter().flat_map(|s| s.data.unwrap().remove(KEY).unwrap().0).collect();
        let files = archive::unpack(&packed, 10_000_000).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["job.sh", "env", "run.sh", "work/data"]);
        assert!(files[3].content == job.source[0].content);
    }
}
