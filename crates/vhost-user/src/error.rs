//! Errors of both ends.

use crate::message::{BackendRequestCode, MAX_FILES, MAX_PAYLOAD, RequestCode};
use crate::{ProtocolFeatures, socket::Timeout};

/// Why a session ended, or why a request was not granted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket itself failed.
    #[error("vhost-user socket: {operation} failed")]
    Socket {
        /// The system call in the words of a log reader.
        operation: &'static str,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// The peer closed the connection in the middle of a message or before an expected reply.
    #[error("peer closed the connection after {received} of {expected} bytes of a message")]
    Truncated {
        /// Bytes of the message that did arrive.
        received: usize,
        /// Bytes the message should have had, as far as known.
        expected: usize,
    },
    /// The version in the header's flags is not 1.
    #[error("message {request} has flags {flags:#x}: not version 1 of the protocol")]
    Version {
        /// Request number of the header.
        request: u32,
        /// Flags of the header.
        flags: u32,
    },
    /// The header announces more bytes than any message has. The stream cannot be followed any further.
    #[error("message {request} announces {size} bytes of payload, the limit is {MAX_PAYLOAD}")]
    TooLong {
        /// Request number of the header.
        request: u32,
        /// Payload size of the header.
        size: u32,
    },
    /// More files than any message has, or more than this process may open.
    #[error("message carries more than {MAX_FILES} files, or this process is out of file descriptors")]
    TooManyFiles,
    /// Nothing arrived in the time given.
    #[error("no message within {0}")]
    Timeout(Timeout),
    /// The reply does not belong to the request that was sent.
    #[error("reply to {request}: {what}")]
    Reply {
        /// The request sent.
        request: RequestCode,
        /// What is wrong with the reply.
        what: String,
    },
    /// The backend answered the request with a non-zero acknowledgement.
    #[error("the backend refused {request} with status {status}")]
    Refused {
        /// The request sent.
        request: RequestCode,
        /// The backend's acknowledgement, never 0.
        status: u64,
    },
    /// The frontend answered a request of the backend with a non-zero status.
    #[error("the frontend refused {request} with status {status:#x}")]
    RefusedByFrontend {
        /// The request sent.
        request: BackendRequestCode,
        /// The frontend's answer, never 0.
        status: u64,
    },
    /// What arrived on the backend's channel is no answer to the request sent, or no request.
    #[error("{request} on the backend's channel: {what}")]
    Channel {
        /// The request sent, or its number.
        request: String,
        /// What is wrong.
        what: String,
    },
    /// The caller gave up waiting.
    #[error("waiting for a message was cancelled")]
    CalledOff,
    /// The request needs a protocol feature that was not negotiated.
    #[error("{request} needs protocol feature {feature:?}, which was not negotiated")]
    NotNegotiated {
        /// The request that was asked for.
        request: RequestCode,
        /// The missing feature.
        feature: ProtocolFeatures,
    },
    /// A request that must be answered with data could not be, so the peer would wait for ever.
    #[error("cannot answer {request}: {reason}")]
    Unanswerable {
        /// The request received.
        request: RequestCode,
        /// Why there is no answer.
        reason: String,
    },
}

impl Error {
    pub(crate) fn socket(operation: &'static str, source: impl Into<std::io::Error>) -> Self {
        Self::Socket {
            operation,
            source: source.into(),
        }
    }
}

/// Why a message, complete and well framed, is not a request. The session lives on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The number is not one of the requests implemented here.
    #[error("unknown request {0}")]
    Unknown(u32),
    /// The payload has not the size the request demands.
    #[error("{request} has {size} bytes of payload, {expected} expected")]
    Size {
        /// The request.
        request: RequestCode,
        /// Bytes of payload received.
        size: usize,
        /// Bytes of payload it should have.
        expected: usize,
    },
    /// The message has too many or too few file descriptors.
    #[error("{request} came with {files} files, {expected} expected")]
    Files {
        /// The request.
        request: RequestCode,
        /// Files received.
        files: usize,
        /// Files it should have.
        expected: usize,
    },
    /// A field has a value outside its range.
    #[error("{request}: {field} is {value:#x}, out of range")]
    Value {
        /// The request.
        request: RequestCode,
        /// The field in the words of the specification.
        field: &'static str,
        /// What was sent.
        value: u64,
    },
    /// The request needs a protocol feature that was not negotiated.
    #[error("{request} needs protocol feature {feature:?}, which was not negotiated")]
    NotNegotiated {
        /// The request.
        request: RequestCode,
        /// The missing feature.
        feature: ProtocolFeatures,
    },
}
