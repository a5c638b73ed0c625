//! The messages of each workload's operation, in the order in which a guest's kernel sends them.

pub(crate) mod common;
mod data;
mod directory;
mod files;
mod names;
pub(crate) mod operation;

use std::sync::Arc;

use common::{Common, PAGE};
use data::{ColdRead, Read, Write};
use directory::Readdirplus;
use files::{CreateWriteUnlink, OpenReadClose};
use names::{Getattr, Lookup};
use operation::Steps;

use crate::random::Random;
use crate::ring::session::MEBIBYTE;
use crate::ring::workload::Kind;

/// The steps of seat `seat`, whose number differs from those of all other seats of the daemon; `first`: in its lane.
pub(crate) fn steps(kind: Kind, common: &Arc<Common>, seat: u64, first: bool) -> Box<dyn Steps> {
    let common = Arc::clone(common);
    let random = Random::new(seat);
    match kind {
        Kind::Getattr => Box::new(Getattr { common, random }),
        Kind::Mixed if first => Box::new(Getattr { common, random }),
        Kind::Mixed => Box::new(ColdRead { common }),
        Kind::Lookup => Box::new(Lookup::new(common, random, 0)),
        Kind::LookupMiss => Box::new(Lookup::new(common, random, libc::ENOENT)),
        Kind::OpenReadClose => Box::new(OpenReadClose::new(common, random)),
        Kind::CreateWriteUnlink => Box::new(CreateWriteUnlink::new(common, seat)),
        Kind::Readdirplus => Box::new(Readdirplus::new(common)),
        Kind::Read4k => Box::new(Read::new(common, random, PAGE)),
        Kind::Read1m => Box::new(Read::new(common, random, MEBIBYTE)),
        Kind::Write4k => Box::new(Write::new(common, random, PAGE)),
        Kind::Write1m => Box::new(Write::new(common, random, MEBIBYTE)),
    }
}
