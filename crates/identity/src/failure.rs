//! Why a TLS handshake failed, in an operator's words (PAINS P9).
//!
//! Invariant: every error of a handshake has one class, with a stable label for metrics and a text that names the likely cause.
//! A certificate that *we* refuse carries the whole cause; one that the *peer* refused is known only by its alert, so the
//! text then points at the peer's own record.

use std::{io, time::Duration};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use rustls_pki_types::UnixTime;

use crate::verify::VerifyError;

/// A failed handshake. [`VerifyError`] tells more where the peer's certificate was the reason.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HandshakeFailure {
    /// No TLS came back.
    #[error(
        "the peer does not speak TLS; it probably has no sidecar, or its PeerAuthentication mode is DISABLE"
    )]
    PeerPlaintext,
    /// Another authority, or another trust domain without bundle.
    #[error("{0}")]
    UnknownCa(VerifyError),
    /// The peer's certificate is over.
    #[error("the peer's certificate (or its issuer's) expired {} s ago; its renewal fails, or a clock is wrong", .late.as_secs())]
    Expired {
        /// By how much.
        late: Duration,
    },
    /// The peer's certificate starts later.
    #[error("the peer's certificate (or its issuer's) is valid only in {} s; a clock is wrong", .early.as_secs())]
    NotYetValid {
        /// By how much.
        early: Duration,
    },
    /// Somebody else answered.
    #[error("{0}")]
    WrongIdentity(VerifyError),
    /// The peer's certificate is wrong in another way.
    #[error("{0}")]
    BadCertificate(VerifyError),
    /// A certificate from outside the mesh is not for this host.
    #[error("the server's certificate is not for {expected}; it is for {}", .presented.join(", "))]
    WrongName {
        /// The name asked for.
        expected: String,
        /// The names that it has.
        presented: Vec<String>,
    },
    /// A certificate from outside the mesh is refused for another reason.
    #[error("the certificate from outside the mesh is refused: {0}")]
    BadOutsideCertificate(CertificateError),
    /// The peer showed no certificate where one is needed.
    #[error("the peer sent no certificate; it has no identity yet or is not in the mesh")]
    NoCertificate,
    /// We have no certificate to show.
    #[error(
        "no certificate fits this handshake: this workload has none yet, or no listener's certificate covers the name asked for"
    )]
    NoOwnCertificate,
    /// The peer demands a certificate and we showed none.
    #[error("the peer demands a certificate and this workload has none yet")]
    PeerWantsCertificate,
    /// The peer refused our certificate.
    #[error("the peer refused this workload's certificate ({}); {}; the peer's own log names the exact cause", alert_name(*.0), hint(*.0))]
    RefusedByPeer(AlertDescription),
    /// Nothing in common to speak inside TLS.
    #[error(
        "no common application protocol (ALPN); one side is not a mesh proxy, or of a version that does not know the protocol"
    )]
    NoCommonAlpn,
    /// No common version, suite or key exchange.
    #[error("no common TLS version, cipher suite or key exchange: {0}")]
    NoCommonParameters(String),
    /// The connection ended in the middle.
    #[error(
        "the peer closed the connection during the handshake; it may be restarting, have refused this connection, or not speak TLS"
    )]
    PeerClosed,
    /// It took too long.
    #[error("the handshake took too long; the peer is overloaded or does not speak TLS")]
    TimedOut,
    /// The connection broke in another way.
    #[error("the connection failed during the handshake: {0}")]
    Connection(io::ErrorKind),
    /// The peer breaks the protocol.
    #[error("the TLS handshake failed: {0}")]
    Protocol(String),
}

impl HandshakeFailure {
    /// A stable name for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::PeerPlaintext => "peer_plaintext",
            Self::UnknownCa(_) => "unknown_ca",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::WrongIdentity(_) => "wrong_identity",
            Self::BadCertificate(_) => "bad_certificate",
            Self::WrongName { .. } => "wrong_name",
            Self::BadOutsideCertificate(_) => "bad_outside_certificate",
            Self::NoCertificate => "no_certificate",
            Self::NoOwnCertificate => "no_own_certificate",
            Self::PeerWantsCertificate => "peer_wants_certificate",
            Self::RefusedByPeer(_) => "refused_by_peer",
            Self::NoCommonAlpn => "no_common_alpn",
            Self::NoCommonParameters(_) => "no_common_parameters",
            Self::PeerClosed => "peer_closed",
            Self::TimedOut => "timed_out",
            Self::Connection(_) => "connection",
            Self::Protocol(_) => "protocol",
        }
    }
}

impl From<&io::Error> for HandshakeFailure {
    /// Also of a mesh client's first read: in TLS 1.3 a client learns only then that the server refused its certificate.
    fn from(error: &io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return Self::from(tls);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => Self::PeerClosed,
            io::ErrorKind::TimedOut => Self::TimedOut,
            kind => Self::Connection(kind),
        }
    }
}

impl From<&Error> for HandshakeFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::PeerPlaintext,
            Error::InvalidCertificate(problem) => of_certificate(problem),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::NoApplicationProtocol => Self::NoCommonAlpn,
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::PeerIncompatible(problem) => Self::NoCommonParameters(format!("{problem:?}")),
            // rustls says so when the certificate resolver has nothing for a client.
            Error::General(text) if text.contains("no server certificate chain resolved") => {
                Self::NoOwnCertificate
            }
            other => Self::Protocol(other.to_string()),
        }
    }
}

fn of_certificate(problem: &CertificateError) -> HandshakeFailure {
    match problem {
        CertificateError::ExpiredContext { time, not_after } => {
            HandshakeFailure::Expired { late: between(*not_after, *time) }
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            HandshakeFailure::NotYetValid { early: between(*time, *not_before) }
        }
        CertificateError::NotValidForNameContext { expected, presented } => HandshakeFailure::WrongName {
            expected: expected.to_str().into_owned(),
            presented: presented.clone(),
        },
        CertificateError::Other(other) => match other.0.downcast_ref::<VerifyError>() {
            Some(cause @ (VerifyError::UnknownCa { .. } | VerifyError::UnknownTrustDomain { .. })) => {
                HandshakeFailure::UnknownCa(cause.clone())
            }
            Some(cause @ VerifyError::WrongIdentity { .. }) => HandshakeFailure::WrongIdentity(cause.clone()),
            Some(VerifyError::NoCertificate) => HandshakeFailure::NoCertificate,
            Some(cause) => HandshakeFailure::BadCertificate(cause.clone()),
            None => HandshakeFailure::BadOutsideCertificate(problem.clone()),
        },
        problem => HandshakeFailure::BadOutsideCertificate(problem.clone()),
    }
}

fn of_alert(alert: AlertDescription) -> HandshakeFailure {
    use AlertDescription as Alert;
    match alert {
        Alert::NoApplicationProtocol => HandshakeFailure::NoCommonAlpn,
        Alert::CertificateRequired => HandshakeFailure::PeerWantsCertificate,
        Alert::ProtocolVersion | Alert::InsufficientSecurity => {
            HandshakeFailure::NoCommonParameters(alert_name(alert))
        }
        Alert::CloseNotify | Alert::UserCanceled => HandshakeFailure::PeerClosed,
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError => HandshakeFailure::RefusedByPeer(alert),
        other => HandshakeFailure::Protocol(format!("the peer sent the alert {}", alert_name(other))),
    }
}

fn hint(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => {
            "it is expired or not yet valid there: check renewal and clocks"
        }
        AlertDescription::UnknownCA => "the peer does not know this mesh's root",
        AlertDescription::AccessDenied => "this identity is not allowed there",
        _ => "it does not know this mesh's root, or expected another identity at this address",
    }
}

fn alert_name(alert: AlertDescription) -> String {
    format!("{alert:?}")
}

fn between(from: UnixTime, to: UnixTime) -> Duration {
    Duration::from_secs(to.as_secs().saturating_sub(from.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_that_wraps_a_tls_error_is_classified_by_it() {
        let plaintext = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, plaintext);
        assert_eq!(HandshakeFailure::from(&wrapped), HandshakeFailure::PeerPlaintext);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(HandshakeFailure::from(&reset), HandshakeFailure::PeerClosed);
    }

    #[test]
    fn a_refusal_by_the_peer_says_where_to_look() {
        let failure = HandshakeFailure::from(&Error::AlertReceived(AlertDescription::CertificateExpired));
        assert_eq!(failure.label(), "refused_by_peer");
        assert!(failure.to_string().contains("clocks"), "{failure}");
        assert!(failure.to_string().contains("peer's own log"), "{failure}");
    }
}
