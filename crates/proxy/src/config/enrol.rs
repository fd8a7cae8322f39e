//! The workload's certificate: the first one for a join token, the next ones for the one before. In a pod the token is a file
//! that the kubelet renews; it is shown each time, so that a certificate that ran out while nobody renewed it is replaced too.
//!
//! Invariant: a new key for each certificate; the old one stays in use until the new one is complete, so a renewal that
//! fails loses nothing while the old one is valid.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use leno_identity::{
    IdentityStore, KeyPair, Trust, TrustBundle, TrustProblem, UnixTime, WorkloadCertificate, csr_for,
};
use leno_model::{Millis, TrustDomain};
use leno_xds::proto::identity::{IssueRequest, identity_client::IdentityClient};
use rand::Rng as _;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{control_link::ControlLink, persist::StateDir};
use crate::{bootstrap::Roots, forward::attempts::chain};

/// Largest file of a token or of roots that is read.
const MAX_FILE: u64 = 1 << 20;

const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);
/// A certificate that has just come is used for so long, however short its life is: authorities give 1 s at least, and a clock
/// that is ahead of theirs sees none of it left.
const LEAST_USE: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A renewal may fail for so long without a warning, where the certificate lasts longer: control planes are restarted.
const QUIET: Duration = Duration::from_secs(60);

/// Between two looks at the file of roots: a root that a control plane shows from one moment to the next is in it for a while
/// before, and certificates are renewed twice a day only.
const LOOK: Duration = Duration::from_secs(10);

/// What proves who a proxy is before it has a certificate.
#[derive(Clone, Debug, Default)]
pub enum JoinToken {
    /// Nothing: it has a valid certificate in its state directory.
    #[default]
    None,
    /// A token that works once, handed over so that it is in no file and no argument list.
    Once(String),
    /// A file that others keep fresh; read anew each time.
    File(PathBuf),
}

/// Why there is no certificate yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// A file is not there, or not readable.
    #[error("{} cannot be read", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The control plane cannot be reached.
    #[error("the control plane cannot be reached")]
    Link(#[source] std::io::Error),
    /// The connection failed after it was made.
    #[error("the connection to the control plane failed")]
    Transport(#[source] tonic::transport::Error),
    /// It said no.
    #[error("the control plane does not issue a certificate: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
    /// What it issued is not usable.
    #[error("the certificate that was issued is not usable: {0}")]
    Unusable(String),
    /// It took too long.
    #[error("the control plane did not answer in {ISSUE_TIMEOUT:?}")]
    Timeout,
}

/// Failures in a row, and what was said of them.
#[derive(Debug, Default)]
struct Failures {
    /// When a failure is worth a warning.
    pressing: Option<Instant>,
    /// The cause that was told last.
    told: Option<String>,
}

impl Failures {
    /// Whether one more is worth a warning: each cause once, and not before it is pressing for a certificate that `lasts`.
    fn is_to_be_told(&mut self, cause: &str, lasts: Duration, now: Instant) -> bool {
        let pressing = *self.pressing.get_or_insert_with(|| now + QUIET.min(lasts / 2));
        if now < pressing || self.told.as_deref() == Some(cause) {
            return false;
        }
        self.told = Some(cause.to_owned());
        true
    }
}

/// Keeps the certificate in `store` fresh.
pub(crate) struct Enrolment {
    /// Where to ask.
    pub(crate) link: Arc<ControlLink>,
    /// What is kept fresh.
    pub(crate) store: Arc<IdentityStore>,
    /// The mesh's trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// Lifetime to ask for.
    pub(crate) ttl: Millis,
    /// Proves who this is.
    pub(crate) join_token: JoinToken,
    /// What to believe of control planes, besides what came with the last certificate.
    pub(crate) roots: Roots,
    /// Told why there is no new certificate, in one line.
    pub(crate) problem: watch::Sender<Option<String>>,
    /// Where the certificate is kept across restarts.
    pub(crate) state: Option<Arc<StateDir>>,
}

impl Enrolment {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (mut pause, mut failures) = (FIRST_PAUSE, Failures::default());
        let mut due = Instant::now() + self.use_for();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
                _ = look.tick() => {
                    if let Err(error) = self.believe_file() {
                        tracing::debug!(cause = chain(&error), "no new roots");
                    }
                    continue;
                }
            }
            match tokio::time::timeout(ISSUE_TIMEOUT, self.issue()).await.unwrap_or(Err(EnrolError::Timeout))
            {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    due = Instant::now() + self.use_for().max(LEAST_USE);
                    self.problem.send_replace(None);
                    if std::mem::take(&mut failures).told.is_some() {
                        tracing::info!("there is a new certificate");
                    }
                    if let JoinToken::Once(_) = self.join_token {
                        self.join_token = JoinToken::None;
                    }
                }
                Err(error) => {
                    let cause = chain(&error);
                    if failures.is_to_be_told(&cause, self.lasts(), Instant::now()) {
                        tracing::warn!(cause, "no new certificate");
                    } else {
                        tracing::debug!(cause, "no new certificate");
                    }
                    self.problem.send_replace(Some(cause));
                    let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(jittered) => {}
                    }
                }
            }
        }
    }

    /// How long to go on with the certificate that there is: not at all without one, else for about half of what it has left
    /// at present. Its beginning says nothing: authorities date it back for clocks that are late.
    fn use_for(&self) -> Duration {
        let Some(certificate) = self.store.certificate() else { return Duration::ZERO };
        let now = now();
        let due = certificate.renew_at(now, rand::rng().random());
        Duration::from_secs(due.as_secs().saturating_sub(now.as_secs()))
    }

    /// How long the certificate that there is can be used.
    fn lasts(&self) -> Duration {
        let end = self.store.certificate().map_or(0, |certificate| certificate.not_after().as_secs());
        Duration::from_secs(end.saturating_sub(now().as_secs()))
    }

    async fn issue(&self) -> Result<(), EnrolError> {
        let unusable = |error: &dyn std::fmt::Display| EnrolError::Unusable(error.to_string());
        let key = KeyPair::generate().map_err(|error| unusable(&error))?;
        let csr = csr_for(&key).map_err(|error| unusable(&error))?;
        let join_token = self.token()?;
        self.believe_file()?;
        let valid = self.store.certificate().is_none_or(|certificate| certificate.is_valid_at(now()));
        let dialled = if valid {
            self.link.dial().await
        } else {
            self.link.dial_unnamed((*self.store.trust()).clone()).await
        };
        let connection = dialled.map_err(EnrolError::Link)?;
        let channel = leno_xds::transport::channel(connection).await.map_err(EnrolError::Transport)?;
        let request = IssueRequest {
            csr_der: csr.into_bytes().into(),
            join_token: join_token.into(),
            ttl_seconds: self.ttl.0.div_ceil(1000),
        };
        let issued = IdentityClient::new(channel).issue(request).await;
        let issued = issued.map_err(|status| EnrolError::Refused(Box::new(status)))?.into_inner();
        let certificate = WorkloadCertificate::from_der(issued.chain_der.into_iter().map(Vec::from), key)
            .map_err(|error| unusable(&error))?;
        let bundle =
            TrustBundle::from_der(self.trust_domain.clone(), issued.root_der.into_iter().map(Vec::from))
                .map_err(|error| unusable(&error))?;
        if let Some(state) = &self.state {
            state.save_certificate(&certificate, &bundle);
        }
        self.store.set_trust(Trust::new([bundle]));
        tracing::debug!(identity = %certificate.spiffe_id(), "certificate in use");
        self.store.set_certificate(certificate);
        Ok(())
    }
}

impl Enrolment {
    fn token(&self) -> Result<String, EnrolError> {
        match &self.join_token {
            JoinToken::None => Ok(String::new()),
            JoinToken::Once(token) => Ok(token.clone()),
            JoinToken::File(path) => Ok(read(path)?.trim().to_owned()),
        }
    }

    /// A root that is new in the file is believed from the next connection on, beside those that came with the last certificate.
    fn believe_file(&self) -> Result<(), EnrolError> {
        let Roots::File { file } = &self.roots else { return Ok(()) };
        let unusable = |error: TrustProblem| EnrolError::Unusable(format!("{}: {error}", file.display()));
        let bundle =
            TrustBundle::from_pem(self.trust_domain.clone(), read(file)?.as_bytes()).map_err(unusable)?;
        let trust = self.store.trust();
        let mut roots =
            trust.bundle(self.trust_domain.as_str()).map_or_else(Vec::new, |it| it.roots().to_vec());
        let new: Vec<_> = bundle.roots().iter().filter(|root| !roots.contains(root)).cloned().collect();
        if !new.is_empty() {
            roots.extend(new);
            let joined = TrustBundle::new(self.trust_domain.clone(), roots).map_err(unusable)?;
            tracing::info!("the mesh has new roots");
            self.store.set_trust(trust.with(joined));
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, EnrolError> {
    let mut text = String::new();
    let result = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    result.map_err(|source| EnrolError::File { path: path.to_owned(), source })?;
    Ok(text)
}

/// The wall clock, as certificates see it.
pub(crate) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use leno_ca::{Intermediate, Root};
    use leno_identity::SpiffeId;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test(start_paused = true)]
    async fn new_roots_are_believed_long_before_a_certificate_is_due() {
        let domain = TrustDomain::default();
        let [old, new] = [(); 2].map(|()| Root::generate(&domain, now()).unwrap());
        let authority = Intermediate::issue_by(&old, "west", now()).unwrap().into_authority(now()).unwrap();
        let key = KeyPair::generate().unwrap();
        let identity = SpiffeId::workload(&domain, "shop", "web").unwrap();
        let issued = authority.issue(&csr_for(&key).unwrap(), &identity, DAY, now()).unwrap();
        let certificate = WorkloadCertificate::new(issued.chain, key).unwrap();
        let store = IdentityStore::with_certificate(Trust::new([old.bundle().unwrap()]), certificate);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, old.certificate_pem()).unwrap();
        let enrolment = Enrolment {
            link: Arc::new(ControlLink::new(Vec::new(), identity, &store)),
            store: store.clone(),
            trust_domain: domain.clone(),
            ttl: Millis(86_400_000),
            join_token: JoinToken::None,
            roots: Roots::File { file: file.path().to_owned() },
            problem: watch::channel(None).0,
            state: None,
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(enrolment.run(stop.clone()));
        let known = || store.trust().bundle(domain.as_str()).unwrap().roots().len();
        tokio::time::sleep(LOOK * 2).await;
        assert_eq!(known(), 1);
        std::fs::write(&file, old.certificate_pem() + &new.certificate_pem()).unwrap();
        tokio::time::sleep(LOOK * 2).await;
        assert_eq!(known(), 2, "its certificate is good for half a day more");
        std::fs::write(&file, "half a file").unwrap();
        tokio::time::sleep(LOOK * 2).await;
        assert_eq!(known(), 2);
        stop.cancel();
        running.await.unwrap();
    }

    #[test]
    fn without_a_certificate_each_cause_is_told_at_once_and_once() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        assert!(failures.is_to_be_told("refused", Duration::ZERO, now));
        assert!(!failures.is_to_be_told("refused", Duration::ZERO, now + FIRST_PAUSE));
        assert!(failures.is_to_be_told("timeout", Duration::ZERO, now + FIRST_PAUSE));
    }

    #[test]
    fn a_renewal_may_fail_while_a_control_plane_is_restarted_and_not_much_longer() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for seconds in [0, 1, 10, 59] {
            assert!(!failures.is_to_be_told("away", DAY, now + Duration::from_secs(seconds)), "{seconds}");
        }
        assert!(failures.is_to_be_told("away", DAY, now + QUIET));
        assert!(!failures.is_to_be_told("away", DAY, now + QUIET * 2));
        let mut of_short_life = Failures::default();
        assert!(!of_short_life.is_to_be_told("away", Duration::from_secs(10), now));
        assert!(of_short_life.is_to_be_told("away", Duration::from_secs(5), now + Duration::from_secs(5)));
    }
}
