//! Chains of certificates: who may do what, and whether that holds by this machine's clock.

use std::fmt;

use fulmar_core::certificate;
use fulmar_core::limits::CHAIN_CERTIFICATES_MAX;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, PolicyCommand};

use super::read::{Cert, is_signed_by};
use crate::output::text::timestamp;

/// What is wrong with a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChainFault {
    /// It is no longer valid.
    Expired {
        /// Which certificate.
        title: String,
        /// Until when it was, in seconds since 1970.
        not_after_unix_s: i64,
        /// The clock here.
        now_unix_s: i64,
    },
    /// It is not valid yet.
    NotYet {
        /// Which certificate.
        title: String,
        /// From when on it is, in seconds since 1970.
        not_before_unix_s: i64,
        /// The clock here.
        now_unix_s: i64,
    },
    /// It is not signed by the one that follows it.
    Order {
        /// Which certificate.
        title: String,
        /// The one that follows.
        next: String,
    },
    /// Its highest certificate is not signed by the CA.
    UnknownIssuer {
        /// Which certificate.
        title: String,
    },
    /// It signs, and may not.
    NoAuthority {
        /// Which certificate.
        title: String,
    },
    /// There are too many.
    TooLong,
    /// What the certificates say does not go together.
    Says {
        /// What is wrong.
        text: String,
    },
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |unix_s: &i64| timestamp(unix_s.saturating_mul(1000));
        match self {
            Self::Expired { title, not_after_unix_s, now_unix_s } => write!(
                f,
                "certificate {title} has expired: it was valid until {}, the clock here says {}; have it signed again",
                time(not_after_unix_s),
                time(now_unix_s)
            ),
            Self::NotYet { title, not_before_unix_s, now_unix_s } => write!(
                f,
                "certificate {title} is not valid yet: it will be from {}, the clock here says {}; set the clock, or wait",
                time(not_before_unix_s),
                time(now_unix_s)
            ),
            Self::Order { title, next } => write!(
                f,
                "certificate {title} is not signed by {next}, which follows it: the leaf comes first, then who has signed it"
            ),
            Self::UnknownIssuer { title } => {
                write!(
                    f,
                    "unknown issuer: certificate {title} is not signed by the CA: give the CA certificate of this server"
                )
            }
            Self::NoAuthority { title } => write!(f, "certificate {title} is not one that may sign others"),
            Self::TooLong => write!(f, "the chain has more than {CHAIN_CERTIFICATES_MAX} certificates"),
            Self::Says { text } => f.write_str(text),
        }
    }
}

/// What a holder of a CA certificate may hand on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authority {
    /// The path that it holds.
    pub path: Name,
    /// Which certificate of the chain has the policy of this path; nothing at the root.
    pub policy_at: Option<usize>,
}

/// The chain without the CA's own certificate at its end.
#[must_use]
pub fn without_root(mut certs: Vec<Cert>) -> Vec<Cert> {
    if certs.len() > 1 && certs.last().is_some_and(Cert::is_root) {
        certs.pop();
    }
    certs
}

/// Checks signatures, order, times, and what may sign: the leaf first, below `root`.
///
/// # Errors
/// [`ChainFault`].
pub fn check(certs: &[Cert], root: &Cert, now_unix_s: i64) -> Result<(), ChainFault> {
    if certs.len() > CHAIN_CERTIFICATES_MAX {
        return Err(ChainFault::TooLong);
    }
    let above = certs.iter().skip(1).map(Some).chain([None]);
    for (cert, next) in certs.iter().zip(above) {
        let title = cert.title();
        match next {
            Some(next) if cert.issuer != next.subject || !is_signed_by(&cert.der, &next.key) => {
                return Err(ChainFault::Order { title, next: next.title() });
            }
            None if cert.issuer != root.subject || !is_signed_by(&cert.der, &root.key) => {
                return Err(ChainFault::UnknownIssuer { title });
            }
            _ => {}
        }
        let issuer = next.unwrap_or(root);
        if !issuer.is_authority {
            return Err(ChainFault::NoAuthority { title: issuer.title() });
        }
    }
    certs.iter().chain([root]).try_for_each(|cert| check_time(cert, now_unix_s))
}

/// Checks the time of one certificate.
///
/// # Errors
/// [`ChainFault`].
pub fn check_time(cert: &Cert, now_unix_s: i64) -> Result<(), ChainFault> {
    let Cert { not_before_unix_s, not_after_unix_s, .. } = *cert;
    if now_unix_s > not_after_unix_s {
        return Err(ChainFault::Expired { title: cert.title(), not_after_unix_s, now_unix_s });
    }
    if now_unix_s < not_before_unix_s {
        return Err(ChainFault::NotYet { title: cert.title(), not_before_unix_s, now_unix_s });
    }
    Ok(())
}

/// What a chain of CA certificates, its holder's first, is the authority for.
///
/// # Errors
/// [`ChainFault::Says`].
pub fn authority(certs: &[Cert]) -> Result<Authority, ChainFault> {
    let mut authority = Authority { path: Name::ROOT, policy_at: None };
    for (at, cert) in certs.iter().enumerate().rev() {
        let says = |text: &str| ChainFault::Says { text: format!("certificate {}: {text}", cert.title()) };
        let Some(value) = &cert.carries else { continue };
        let Ok(Command::Policy(PolicyCommand::Add(_))) = certificate::decode(value) else {
            return Err(says("it carries something else than a policy, so it is no authority for anything"));
        };
        let label = cert.common_name.as_deref().ok_or(says("it carries a policy and has no common name"))?;
        authority.path = authority.path.join_path(label).map_err(|error| says(&error.to_string()))?;
        authority.policy_at = Some(at);
    }
    Ok(authority)
}
