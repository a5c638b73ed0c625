//! Tools of the host, run on a mount of each daemon and on the directory itself.
//!
//! Each run has its own daemon and mount, so that neither has cached any file yet; the host's own caches are warm for
//! all. Starting, mounting and making the files are not counted.

mod namespace;
mod relay;
mod run;
pub(crate) mod tool;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::syncfs;

use relay::{Relay, Rings};
use run::Ran;
use tool::{OUTPUT, REPOSITORY, TREE, Tool, git};
use tree::Tree;

use crate::daemon::contender::Contender;
use crate::daemon::recipe::Recipe;
use crate::daemon::start::Start;
use crate::error::Error;
use crate::machine::other_work::{OtherWork, Reading};
use crate::measure::{Round, Rounds, Taken};
use crate::progress::progress;
use crate::scratch::own_directory;
use crate::show::report::Description;

/// The files that tools work on, and what daemons are started with.
#[derive(Debug)]
pub(crate) struct Workshop<'a> {
    start: Start<'a>,
    /// Holds all that follows.
    directory: PathBuf,
    tree: Tree,
}

/// Why some of what was asked for is not measured.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) tools: Vec<Tool>,
    /// The reason, with the way out.
    pub(crate) reason: String,
}

/// What can be measured here, and what cannot. The calling thread gets a mount namespace of its own.
pub(crate) fn available(wanted: &[Tool]) -> (Vec<Tool>, Vec<Missing>) {
    if wanted.is_empty() {
        return (Vec::new(), Vec::new());
    }
    if let Err(reason) = namespace::enter() {
        let tools = wanted.to_vec();
        return (Vec::new(), vec![Missing { tools, reason }]);
    }
    let mut found = Vec::new();
    let mut all_missing: Vec<Missing> = Vec::new();
    for &tool in wanted {
        let Some(reason) = tool.missing() else {
            found.push(tool);
            continue;
        };
        match all_missing.iter_mut().find(|missing| missing.reason == reason) {
            Some(missing) => missing.tools.push(tool),
            None => all_missing.push(Missing {
                tools: vec![tool],
                reason,
            }),
        }
    }
    (found, all_missing)
}

impl<'a> Workshop<'a> {
    /// Makes the files for `tools`.
    pub(crate) fn make(start: Start<'a>, files: u32, tools: &[Tool]) -> Result<Self, Error> {
        let directory = start.scratch.workshop();
        let this = Self {
            start,
            directory,
            tree: Tree { files },
        };
        let failed = |source| Error::Scratch {
            path: this.directory.clone(),
            source,
        };
        fs::create_dir(&this.directory).map_err(failed)?;
        // For the mount of one daemon after another.
        fs::create_dir(this.mountpoint()).map_err(failed)?;
        fs::create_dir_all(this.share().join(TREE)).map_err(failed)?;
        this.tree.write(&this.share().join(TREE)).map_err(failed)?;
        if tools.contains(&Tool::Untar) {
            let mut tar = Command::new("tar");
            tar.arg("-cf")
                .arg(this.archive())
                .arg("-C")
                .arg(this.share().join(TREE))
                .arg(".");
            this.run("tar", tar)?;
        }
        if tools
            .iter()
            .any(|tool| matches!(tool, Tool::GitStatus | Tool::GitClone))
        {
            let repository = this.share().join(REPOSITORY);
            fs::create_dir(&repository).map_err(failed)?;
            this.tree.write(&repository).map_err(failed)?;
            for arguments in [
                &["init", "--quiet"][..],
                &["add", "--all"],
                &["commit", "--quiet", "--message", "all"],
                &["repack", "-a", "-d", "--quiet"],
            ] {
                let mut git = git();
                git.arg("-C").arg(&repository).args(arguments);
                this.run("git", git)?;
            }
        }
        Ok(this)
    }

    /// `rounds` runs of a tool by each contender, the host last, taking turns.
    pub(crate) fn measure(&self, tool: Tool, rounds: u32, contenders: &[Description]) -> Result<Taken, Error> {
        let mut all = vec![Rounds::default(); self.start.recipes.len() + 1];
        let recipes = || self.start.recipes.iter().map(Some).chain([None]);
        // Not counted: programs and files come into the page cache.
        self.round(
            tool,
            self.start.recipes.len(),
            None,
            &contenders[0],
            &mut OtherWork::default(),
        )?;
        let mut other_work = OtherWork::default();
        for number in 0..rounds {
            for ((index, recipe), contender) in recipes().enumerate().zip(contenders) {
                progress(&format!("{tool}: round {} of {rounds}, {}", number + 1, contender.name));
                let round = self.round(tool, index, recipe, contender, &mut other_work)?;
                all[index].all.push(round);
            }
        }
        progress("");
        Ok(Taken {
            rounds: all,
            other_work,
        })
    }

    /// One run by one contender. No recipe: the host.
    fn round(
        &self,
        tool: Tool,
        index: usize,
        recipe: Option<&Recipe>,
        contender: &Description,
        other_work: &mut OtherWork,
    ) -> Result<Round, Error> {
        self.prepare(tool, index)?;
        let Some(recipe) = recipe else {
            let before = Reading::now(Duration::ZERO)?;
            let elapsed = self.work(tool, index, &self.share(), "the host")?;
            *other_work += before.until(&Reading::now(Duration::ZERO)?);
            return Ok(Round::of_run(elapsed, None));
        };
        let (daemon, mount) = self.serve(recipe, contender)?;
        let blame = |error| daemon.blame(error);
        let (before, cpu_before) = (Reading::now(daemon.cpu_time() + mount.cpu_time())?, daemon.cpu_time());
        let elapsed = self
            .work(tool, index, &self.mountpoint(), &recipe.name)
            .map_err(blame)?;
        let cpu = daemon.cpu_time().saturating_sub(cpu_before);
        *other_work += before.until(&Reading::now(daemon.cpu_time() + mount.cpu_time())?);
        mount.end().map_err(blame)?;
        Ok(Round::of_run(elapsed, Some(cpu)))
    }

    /// Puts in order what the run needs, and has the disk be at rest.
    fn prepare(&self, tool: Tool, index: usize) -> Result<(), Error> {
        let own = self.share().join(own_directory(index));
        let output = own.join(OUTPUT);
        let failed = Error::system::<std::io::Error>("put the files for a tool in order");
        let prepared = || -> std::io::Result<()> {
            if own.exists() {
                fs::remove_dir_all(&own)?;
            }
            fs::create_dir_all(&output)?;
            if tool == Tool::Rm {
                fs::create_dir(output.join(TREE))?;
                self.tree.write(&output.join(TREE))?;
            }
            syncfs(fs::File::open(&own)?)?;
            Ok(())
        };
        prepared().map_err(failed)
    }

    /// A new daemon and a mount of what it shares.
    fn serve(&self, recipe: &Recipe, contender: &Description) -> Result<(Contender, Relay), Error> {
        let Start {
            scratch,
            connection,
            processors,
            ..
        } = self.start;
        let socket = scratch.socket();
        let mut daemon = Contender::start(recipe, &self.share(), &socket, connection.queues, processors)?;
        daemon.wait_until_it_listens(&socket)?;
        let rings = Rings {
            packed: contender.ring == Some("packed"),
            queues: contender.queues,
        };
        let mount = Relay::start(&socket, &self.mountpoint(), rings).map_err(|error| daemon.blame(error))?;
        Ok((daemon, mount))
    }

    /// The time that the tool takes in `share`, a mount or the directory itself.
    fn work(&self, tool: Tool, index: usize, share: &Path, who: &str) -> Result<Duration, Error> {
        let own = own_directory(index);
        let mut elapsed = Duration::ZERO;
        let mut output = String::new();
        for command in tool.commands(share, &share.join(&own), &self.archive(), self.tree) {
            let ran = self.run(&tool.to_string(), command)?;
            elapsed += ran.elapsed;
            output.push_str(&ran.output);
        }
        if !tool.did_its_work(&output, &self.share().join(own), self.tree) {
            return Err(Error::Undone {
                tool: tool.to_string(),
                who: who.into(),
            });
        }
        Ok(elapsed)
    }

    fn run(&self, tool: &str, command: Command) -> Result<Ran, Error> {
        let ran = run::run(command, self.start.stop).map_err(|source| Error::RunTool {
            tool: tool.into(),
            source,
        })?;
        let ran = ran.ok_or(Error::Interrupted)?;
        if ran.status.success() {
            Ok(ran)
        } else {
            Err(Error::Tool {
                tool: tool.into(),
                status: ran.status.to_string(),
                said: ran.said,
            })
        }
    }

    fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    fn mountpoint(&self) -> PathBuf {
        self.directory.join("mount")
    }

    fn archive(&self) -> PathBuf {
        self.directory.join("tree.tar")
    }
}
