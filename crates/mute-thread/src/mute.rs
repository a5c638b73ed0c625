//! What muting means in notmuch's terms.
//!
//! A thread is muted if one of its messages has the tag. Thread ids are never kept: notmuch looks the threads up while it
//! holds the database. `apply` gives the tag to every message of the thread, so that neither the loss of the message that was
//! muted first nor a later split of the thread unmutes anything.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, printable};
use crate::message_id::{MessageId, quote};
use crate::notmuch::Notmuch;
use crate::tag::Tag;

/// The muted threads of one database.
#[derive(Debug)]
pub(crate) struct Mute {
    notmuch: Notmuch,
    tag: Tag,
}

impl Mute {
    pub(crate) fn new(notmuch: Notmuch, tag: Tag) -> Self {
        Self { notmuch, tag }
    }

    /// Fails unless notmuch knows each of these messages.
    pub(crate) fn check_known(&self, ids: &[MessageId]) -> Result<(), Error> {
        let queries = ids.iter().flat_map(|id| [id.query(), threads_with(&id.query())]);
        let counts = self.notmuch.count(queries)?;
        let known = || ids.iter().zip(counts.as_chunks::<2>().0);
        let unknown: Vec<_> = known()
            .filter(|(_, [messages, _])| *messages == 0)
            .map(|(id, _)| id.to_string())
            .collect();
        if !unknown.is_empty() {
            return Err(Error::Unknown(unknown.join(", ")));
        }
        // Without field processors notmuch takes thread:{...} for the name of a thread that does not exist.
        if known().any(|(_, [_, in_thread])| *in_thread == 0) {
            return Err(Error::NoThreadQueries);
        }
        Ok(())
    }

    /// Mutes the threads of these messages.
    pub(crate) fn add(&self, ids: &[MessageId], wait: Duration) -> Result<(), Error> {
        let lines = ids.iter().map(|id| self.mute_line(&threads_with(&id.query())));
        self.notmuch.tag(&lines.collect::<String>(), wait)
    }

    /// Unmutes the threads of these messages.
    pub(crate) fn remove(&self, ids: &[MessageId], wait: Duration) -> Result<(), Error> {
        let tag = self.tag.in_batch();
        let lines = ids
            .iter()
            .map(|id| format!("-{tag} -- {}\n", threads_with(&id.query())));
        self.notmuch.tag(&lines.collect::<String>(), wait)
    }

    /// Marks what has come to muted threads read.
    pub(crate) fn apply(&self, wait: Duration) -> Result<(), Error> {
        // One query for all threads. notmuch looks only at those messages that lack the tag or are unread.
        let line = self.mute_line(&threads_with(&self.tag.query()));
        self.notmuch.tag(&line, wait)
    }

    fn mute_line(&self, query: &str) -> String {
        format!("+{} -unread -- {query}\n", self.tag.in_batch())
    }

    /// What [`Mute::add`] would do, in words that follow "would".
    pub(crate) fn plan_add(&self, ids: &[MessageId]) -> Result<String, Error> {
        self.plan_mute(&threads_with_any(ids))
    }

    /// What [`Mute::apply`] would do, in words that follow "would".
    pub(crate) fn plan_apply(&self) -> Result<String, Error> {
        self.plan_mute(&threads_with(&self.tag.query()))
    }

    fn plan_mute(&self, query: &str) -> Result<String, Error> {
        let tag = self.tag.query();
        let counts = self
            .notmuch
            .count([format!("{query} and not {tag}"), format!("{query} and tag:unread")])?;
        Ok(format!(
            "tag {} and mark {} read",
            messages(counts[0]),
            messages(counts[1])
        ))
    }

    /// What [`Mute::remove`] would do, in words that follow "would".
    pub(crate) fn plan_remove(&self, ids: &[MessageId]) -> Result<String, Error> {
        let query = format!("{} and {}", threads_with_any(ids), self.tag.query());
        let counts = self.notmuch.count([query])?;
        Ok(format!("take the tag {} from {}", self.tag, messages(counts[0])))
    }

    /// The muted threads, newest first.
    pub(crate) fn list(&self) -> Result<Vec<Thread>, Error> {
        let answer = self.notmuch.search(&self.tag.query())?;
        serde_json::from_slice(&answer).map_err(|error| Error::Answer {
            job: "search",
            reason: error.to_string(),
        })
    }
}

/// A thread as `notmuch search --format=json` describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Thread {
    thread: String,
    date_relative: String,
    total: u64,
    subject: String,
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = printable(&self.subject);
        write!(
            f,
            "thread:{} {:>12} {:>5} {subject}",
            self.thread, self.date_relative, self.total
        )
    }
}

/// The query for all messages of the threads with a message that matches `query`.
fn threads_with(query: &str) -> String {
    format!("thread:{}", quote(&format!("{{{query}}}")))
}

fn threads_with_any(ids: &[MessageId]) -> String {
    let queries: Vec<_> = ids.iter().map(MessageId::query).collect();
    threads_with(&queries.join(" or "))
}

fn messages(count: u64) -> String {
    match count {
        1 => "1 message".to_owned(),
        count => format!("{count} messages"),
    }
}
