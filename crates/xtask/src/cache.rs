//! The cache of setup, outside the clone, so that the next clone on this machine finds it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustix::fs::{FlockOperation, flock};

/// Lies in each finished part and holds its recipe's stamp. A part is renamed into place with its stamp inside,
/// so that a part half done is never taken for one that is there.
const STAMP: &str = ".innkeeper-stamp";

#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$INNKEEPER_CACHE`, else `innkeeper` in the user's cache directory.
    pub(crate) fn open() -> Result<Cache> {
        let root = root_from(std::env::var_os).ok_or_else(|| {
            anyhow!(
                "no directory for the cache: set INNKEEPER_CACHE to a directory (neither XDG_CACHE_HOME nor HOME is set)"
            )
        })?;
        fs::create_dir_all(&root).with_context(|| format!("cannot create the cache directory {}", root.display()))?;
        Ok(Cache { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Lets one set-up work at a time on this cache; the next one waits and then finds everything there.
    pub(crate) fn lock(&self) -> Result<fs::File> {
        let path = self.root.join("lock");
        let file = fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// Makes the part `name` with `build` unless one with the same `stamp` is there, and says which.
    pub(crate) fn ensure(&self, name: &str, stamp: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let part = self.part(name);
        if self.has(name, stamp) {
            println!("  there    {name}  ({stamp})");
            return Ok(part);
        }
        println!("  making   {name}  ({stamp})");
        let started = Instant::now();
        let temporary = self.root.join(format!("{name}.partial"));
        remove(&temporary)?;
        fs::create_dir(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
        build(&temporary).with_context(|| format!("cannot make {name}"))?;
        fs::write(temporary.join(STAMP), stamp).with_context(|| format!("cannot stamp {}", temporary.display()))?;
        remove(&part)?;
        fs::rename(&temporary, &part).with_context(|| format!("cannot rename {} into place", temporary.display()))?;
        println!("  made     {name}  in {:.0} s", started.elapsed().as_secs_f64());
        Ok(part)
    }

    /// Whether the part is there, finished by the recipe that `stamp` names.
    pub(crate) fn has(&self, name: &str, stamp: &str) -> bool {
        fs::read_to_string(self.part(name).join(STAMP)).is_ok_and(|found| found == stamp)
    }
}

fn root_from(variable: impl Fn(&'static str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("INNKEEPER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|home| home.join("innkeeper")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/innkeeper")))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(directory: &tempfile::TempDir) -> Cache {
        Cache {
            root: directory.path().to_owned(),
        }
    }

    #[test]
    fn the_innkeeper_variable_wins_and_empty_ones_do_not_count() {
        let with = |pairs: &'static [(&str, &str)]| {
            root_from(move |name| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.into()))
        };
        assert_eq!(with(&[("INNKEEPER_CACHE", "/a"), ("HOME", "/h")]), Some("/a".into()));
        assert_eq!(
            with(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]),
            Some("/x/innkeeper".into())
        );
        assert_eq!(
            with(&[("INNKEEPER_CACHE", ""), ("HOME", "/h")]),
            Some("/h/.cache/innkeeper".into())
        );
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn a_part_is_made_once_and_again_when_its_recipe_changes() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(&directory);
        let make = |stamp: &str, body: &'static str| {
            let mut ran = false;
            let part = cache
                .ensure("part", stamp, |path| {
                    ran = true;
                    Ok(fs::write(path.join("body"), body)?)
                })
                .unwrap();
            (ran, fs::read_to_string(part.join("body")).unwrap())
        };
        assert_eq!(make("1", "first"), (true, "first".into()));
        assert_eq!(make("1", "second"), (false, "first".into()));
        assert_eq!(make("2", "third"), (true, "third".into()));
    }

    #[test]
    fn a_part_whose_build_failed_is_not_there_and_can_be_made_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(&directory);
        let failed = cache.ensure("part", "1", |path| {
            fs::write(path.join("half"), "")?;
            anyhow::bail!("interrupted")
        });
        assert!(failed.is_err());
        assert!(!cache.has("part", "1"));
        let part = cache.ensure("part", "1", |_| Ok(())).unwrap();
        assert!(!part.join("half").exists(), "nothing of the failed build is left");
    }
}
