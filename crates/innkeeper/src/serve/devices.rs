//! The one list of the devices that innkeeper serves.

use clap::{Args, Subcommand};

use super::device::{Attach, Service};
use super::fs;

/// From each line, which has a module of this folder and its subcommand: the subcommands, and the options of `boot`.
macro_rules! devices {
    ($($module:ident: $command:ident),* $(,)?) => {
        /// The subcommands that serve a device.
        #[derive(Debug, Subcommand)]
        pub(crate) enum Served {
            $($command($module::$command),)*
        }

        impl Served {
            /// The one that was asked for.
            pub(crate) fn service(&self) -> &dyn Service {
                match self {
                    $(Self::$command(command) => command,)*
                }
            }
        }

        /// The devices of `boot`'s machine.
        #[derive(Debug, Args)]
        pub(crate) struct Attachments {
            $(#[command(flatten)]
            pub(crate) $module: $module::Attach,)*
        }

        impl Attachments {
            /// Those of each kind.
            pub(crate) fn kinds(&self) -> Vec<&dyn Attach> {
                vec![$(&self.$module,)*]
            }
        }
    };
}

devices! {
    fs: Share,
}
