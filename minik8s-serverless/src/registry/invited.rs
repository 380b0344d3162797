//! Files from those who may write nothing else: who knows the word sends one file, once. The word stands for nobody and
//! for no other file; what became of it lies in the directory, so that whichever process over it is asked knows.

use super::error::RegistryError;
use super::store::Registry;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use minik8s_core::random;
use std::io;
use std::path::PathBuf;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt;

/// Where words lie whose file has not come.
pub(super) const INVITED: &str = "invited";
/// Where files lie that have come.
pub(super) const SENT: &str = "sent";
/// Letters of a word.
const LENGTH: usize = 40;
/// Largest file.
const LARGEST: u64 = 1 << 30;

impl Registry {
    /// A word for one file.
    ///
    /// # Errors
    /// The disk's.
    pub async fn invite(&self) -> Result<String, RegistryError> {
        let word = random::word(LENGTH);
        let path = self.of_word(INVITED, &word)?;
        match File::create_new(&path).await {
            Ok(_) => Ok(word),
            Err(source) => Err(RegistryError::Io { operation: "make", path, source }),
        }
    }

    /// Whether a word was given here, and its file has not come.
    ///
    /// # Errors
    /// For what cannot be a word.
    pub(super) async fn has_invited(&self, word: &str) -> Result<bool, RegistryError> {
        Ok(fs::try_exists(self.of_word(INVITED, word)?).await.unwrap_or(false))
    }

    /// Takes the file of a word. Where it breaks off, it may be sent again.
    ///
    /// # Errors
    /// `Missing` for a word that is none, or whose file is here or coming; `TooLarge`; where the sender breaks off or the
    /// disk fails.
    pub async fn receive<E: std::fmt::Display>(
        &self,
        word: &str,
        parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), RegistryError> {
        let (invited, sent) = (self.of_word(INVITED, word)?, self.of_word(SENT, word)?);
        let coming = invited.with_extension("coming");
        // Whoever renames it has it.
        let unknown = |_| RegistryError::Missing("what this word stood for".to_owned());
        fs::rename(&invited, &coming).await.map_err(unknown)?;
        let failed = |operation, path: &PathBuf| {
            let path = path.clone();
            move |source: io::Error| RegistryError::Io { operation, path, source }
        };
        match write(&coming, parts).await {
            Ok(()) => fs::rename(&coming, &sent).await.map_err(failed("rename", &coming)),
            Err(error) => {
                fs::rename(&coming, &invited).await.map_err(failed("rename", &coming))?;
                Err(error)
            }
        }
    }

    /// The file of a word, once all of it is here.
    ///
    /// # Errors
    /// `Missing` before that.
    pub async fn sent(&self, word: &str) -> Result<PathBuf, RegistryError> {
        let path = self.of_word(SENT, word)?;
        let missing = |_| RegistryError::Missing("what was to be sent".to_owned());
        fs::metadata(&path).await.map(|_| path).map_err(missing)
    }

    /// Forgets a word and its file.
    pub async fn forget(&self, word: &str) {
        for place in [INVITED, SENT] {
            if let Ok(path) = self.of_word(place, word) {
                let _ = fs::remove_file(path).await;
            }
        }
    }

    fn of_word(&self, place: &str, word: &str) -> Result<PathBuf, RegistryError> {
        let fine = word.len() == LENGTH && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let path = fine.then(|| self.root.join(place).join(word));
        path.ok_or_else(|| RegistryError::Malformed("this".to_owned(), "word of an invitation"))
    }
}

async fn write<E: std::fmt::Display>(
    path: &PathBuf,
    mut parts: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(), RegistryError> {
    let failed = |source| RegistryError::Io { operation: "write to", path: path.clone(), source };
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).await.map_err(failed)?;
    let mut length = 0;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| RegistryError::BrokenOff(error.to_string()))?;
        length += part.len() as u64;
        if length > LARGEST {
            return Err(RegistryError::TooLarge(LARGEST));
        }
        file.write_all(&part).await.map_err(failed)?;
    }
    file.sync_all().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn parts(all: &[&'static str]) -> impl Stream<Item = Result<Bytes, String>> + Unpin + use<> {
        let of = |part: &&'static str| match *part {
            "break" => Err("gone".to_owned()),
            part => Ok(Bytes::from_static(part.as_bytes())),
        };
        stream::iter(all.iter().map(of).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_word_is_good_for_one_whole_file_in_any_process_over_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Registry::open(dir.path()).unwrap(), Registry::open(dir.path()).unwrap());
        let word = one.invite().await.unwrap();
        assert!(matches!(one.sent(&word).await, Err(RegistryError::Missing(_))));
        assert!(matches!(other.receive(&word, parts(&["a", "break"])).await, Err(RegistryError::BrokenOff(_))));
        assert!(matches!(one.sent(&word).await, Err(RegistryError::Missing(_))), "part of a file is none");
        other.receive(&word, parts(&["a", "b"])).await.unwrap();
        assert_eq!(std::fs::read(one.sent(&word).await.unwrap()).unwrap(), b"ab");
        assert!(matches!(other.receive(&word, parts(&["c"])).await, Err(RegistryError::Missing(_))), "a second one");
        one.forget(&word).await;
        assert!(one.sent(&word).await.is_err() && other.receive(&word, parts(&["c"])).await.is_err());
    }

    #[tokio::test]
    async fn only_words_that_were_given_stand_for_something() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        let word = registry.invite().await.unwrap();
        let others = ["", "x", "../names", &word[1..], &"a".repeat(LENGTH), &format!("../../{}", "a".repeat(34))];
        for other in others {
            assert!(registry.receive(other, parts(&["x"])).await.is_err(), "{other:?}");
            assert!(registry.sent(other).await.is_err(), "{other:?}");
        }
    }
}
