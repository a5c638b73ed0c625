//! The vhost-user protocol: messages, backend session, frontend session.
