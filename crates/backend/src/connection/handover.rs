//! Handover of a connection to another process: saved here, restored there.

use guestmem::RegionConfig;
use vhost_user::ProtocolFeatures;
use vhost_user::backend::Handler as _;
use vhost_user::channel::Channel;
use vhost_user::message::MemoryRegion;

use super::{Connection, Refusal};
use crate::inflight::InflightFile;
use crate::saved::SavedConnection;

impl Connection<'_> {
    /// Stops all queues and takes the state that continues elsewhere. The connection can only be dropped afterwards.
    pub(crate) fn save(&mut self) -> std::io::Result<SavedConnection> {
        let memory = self.memory.configs()?;
        let inflight = self.inflight.as_ref().map(InflightFile::parts).transpose()?;
        let queues = self.hurried(|connection| {
            let vrings = (0..).zip(&mut connection.vrings);
            vrings.map(|(index, vring)| vring.save(index)).collect()
        });
        self.config_changes.end();
        let channel = match &self.window {
            Some(window) => window.give_up(),
            None => self.channel.take(),
        };
        let region = |config: RegionConfig| {
            let region = MemoryRegion {
                guest_address: config.guest_address,
                size: config.size,
                user_address: config.user_address,
                mmap_offset: config.file_offset,
            };
            (region, config.file)
        };
        Ok(SavedConnection {
            features: self.features,
            status: self.status,
            channel: channel.map(Channel::into_stream),
            memory: memory.into_iter().map(region).collect(),
            inflight,
            queues,
        })
    }

    /// Restores a saved connection, before the first message.
    pub(crate) fn restore(&mut self, saved: SavedConnection, negotiated: ProtocolFeatures) -> Result<(), Refusal> {
        self.negotiated = negotiated;
        self.set_features(saved.features, false)?;
        self.status = saved.status;
        if !saved.memory.is_empty() {
            self.set_memory_table(saved.memory)?;
        }
        if let Some(channel) = saved.channel {
            self.set_channel(Channel::new(channel))?;
        }
        if let Some((inflight, file)) = saved.inflight {
            self.set_inflight(inflight, file)?;
        }
        let mut kicks = Vec::new();
        for (index, queue) in (0..).zip(saved.queues) {
            let restored = self.vring(index)?.restore(queue);
            let kick = restored.map_err(|source| Refusal::Vring { index, source })?;
            kicks.extend(kick.map(|kick| (index, kick)));
        }
        for (index, kick) in kicks {
            self.set_vring_kick(index, Some(kick))?;
        }
        Ok(())
    }
}
