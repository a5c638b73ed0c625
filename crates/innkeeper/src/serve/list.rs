//! The only list of devices, and code derived from it.

/// Makes the subcommands and the options of `boot` from lines that have a module and its subcommand.
macro_rules! devices {
    ($($module:ident: $command:ident),* $(,)?) => {
        /// The subcommands that serve a device.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Served {
            $($command($module::$command),)*
        }

        impl Served {
            /// The one that was asked for.
            pub(crate) fn service(&self) -> &dyn device::Service {
                match self {
                    $(Self::$command(command) => command,)*
                }
            }
        }

        /// The devices of `boot`'s machine. Those of each kind are no group of clap's (`#[group(skip)]`): all are called `Attach`.
        #[derive(Debug, clap::Args)]
        pub(crate) struct Attachments {
            $(#[command(flatten)]
            pub(crate) $module: $module::Attach,)*
        }

        impl Attachments {
            /// Those of each kind.
            pub(crate) fn kinds(&self) -> Vec<&dyn device::Attach> {
                vec![$(&self.$module,)*]
            }
        }
    };
}
