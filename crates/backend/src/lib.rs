//! Runs a device over vhost-user: negotiation, lanes, window.
