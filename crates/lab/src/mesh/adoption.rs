//! `leno run`: a program of the user takes the place of a stand-in for as long as its connection to the supervisor is open.
//!
//! One line of JSON each way over a Unix socket; only the owner of the mesh can open it.
//! Invariant: when the connection ends, however it ends, the stand-in comes back.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use leno_model::WorkloadId;
use leno_proxy::bootstrap::{HTTP_PROXY_PORT, OUTBOUND_PORT};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::cluster::{self, Command, NoPlace};

const LONGEST_LINE: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// The commands of each cluster, by its name.
pub(super) type Doors = BTreeMap<String, mpsc::Sender<Command>>;

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    workload: String,
    cluster: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Adopted(Box<Adopted>),
    Unknown,
    Taken { replicas: usize },
}

/// What a program is told that takes the place of a stand-in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Adopted {
    /// The replica.
    pub id: WorkloadId,
    /// Its cluster.
    pub cluster: String,
    /// Where it should listen.
    pub app_address: IpAddr,
    /// The ports that it should serve.
    pub ports: Vec<u16>,
    /// Where it dials with a PROXY protocol header.
    pub outbound: SocketAddr,
    /// Where it dials as an HTTP proxy.
    pub http_proxy: SocketAddr,
    /// The environment of its manifest.
    pub env: Vec<(String, String)>,
    /// The services that it may call.
    pub services: Vec<AdoptedService>,
    /// Replicas of the same workload that still have their stand-ins.
    pub stand_ins: usize,
}

/// A service, for a program without cluster DNS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AdoptedService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its virtual address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Vec<u16>,
}

/// Why a program gets no place.
#[derive(Debug, thiserror::Error)]
pub enum AdoptionError {
    /// The mesh does not answer.
    #[error("the mesh does not answer")]
    Unreachable(#[from] io::Error),
    /// No workload has the name.
    #[error("the mesh has no workload of this name")]
    Unknown,
    /// Others were first.
    #[error("each of its replicas ({replicas}) has a program in its place already, or is going")]
    Taken {
        /// How many replicas it has.
        replicas: usize,
    },
}

/// A place taken; dropped, it is given back.
#[derive(Debug)]
pub struct Adoption {
    /// What was taken.
    pub adopted: Adopted,
    _connection: UnixStream,
}

impl Adoption {
    /// Takes the place of the workload `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// When the mesh cannot be reached or has no such workload that is free.
    pub async fn take(
        supervisor: &Path,
        workload: &str,
        cluster: Option<&str>,
    ) -> Result<Self, AdoptionError> {
        let request = Request { workload: workload.to_owned(), cluster: cluster.map(str::to_owned) };
        let (connection, answer) = ask(supervisor, &request).await?;
        match answer {
            Answer::Adopted(adopted) => Ok(Self { adopted: *adopted, _connection: connection }),
            Answer::Unknown => Err(AdoptionError::Unknown),
            Answer::Taken { replicas } => Err(AdoptionError::Taken { replicas }),
        }
    }
}

async fn ask(supervisor: &Path, request: &Request) -> io::Result<(UnixStream, Answer)> {
    let mut connection = UnixStream::connect(supervisor).await?;
    write_line(&mut connection, request).await?;
    let answer = timeout(PATIENCE, read_line(&mut connection)).await??;
    Ok((connection, answer))
}

/// Listens for programs until `stop`.
pub(super) fn listen(
    socket: &Path,
    doors: Doors,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let listener = UnixListener::bind(socket)?;
    Ok(async move {
        let guests = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((connection, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (doors, stop) = (doors.clone(), stop.clone());
            guests.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    result = Box::pin(serve(connection, &doors)) => {
                        if let Err(error) = result {
                            tracing::debug!(%error, "a program did not join");
                        }
                    }
                }
            });
        }
        guests.close();
        guests.wait().await;
    })
}

async fn serve(mut connection: UnixStream, doors: &Doors) -> io::Result<()> {
    let request: Request = timeout(PATIENCE, read_line(&mut connection)).await??;
    let chosen =
        doors.iter().filter(|(name, _)| request.cluster.as_ref().is_none_or(|wanted| wanted == *name));
    let mut taken = 0;
    for (name, door) in chosen {
        let (done, answer) = oneshot::channel();
        if door.send(Command::Adopt { name: request.workload.clone(), done }).await.is_err() {
            continue;
        }
        let found = match timeout(PATIENCE, answer).await {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(NoPlace::Taken(replicas)))) => {
                taken += replicas;
                continue;
            }
            Ok(Ok(Err(NoPlace::Unknown)) | Err(_)) | Err(_) => continue,
        };
        let id = found.plan.id.clone();
        let told = async {
            write_line(&mut connection, &Answer::Adopted(Box::new(adopted(name, found)))).await?;
            // It says nothing more; the end of the connection is the end of the program.
            connection.read_u8().await.map(|_| ())
        };
        let result = told.await;
        let _ = door.send(Command::Return(id)).await;
        return match result {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            result => result,
        };
    }
    let answer = if taken > 0 { Answer::Taken { replicas: taken } } else { Answer::Unknown };
    write_line(&mut connection, &answer).await
}

fn adopted(cluster: &str, found: cluster::Adopted) -> Adopted {
    let cluster::Adopted { plan, services, stand_ins } = found;
    let service = |service: crate::embedded::PlannedService| {
        Some(AdoptedService {
            address: *service.addresses.first()?,
            ports: service.ports.iter().map(|port| port.port).collect(),
            namespace: service.namespace,
            name: service.name,
        })
    };
    Adopted {
        cluster: cluster.to_owned(),
        app_address: if plan.has_proxy() { plan.app_address } else { plan.address },
        ports: plan.ports.iter().map(|port| port.port).collect(),
        outbound: SocketAddr::new(plan.address, OUTBOUND_PORT),
        http_proxy: SocketAddr::new(plan.address, HTTP_PROXY_PORT),
        env: plan.env,
        services: services.into_iter().filter_map(service).collect(),
        stand_ins,
        id: plan.id,
    }
}

async fn write_line(connection: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    connection.write_all(&line).await
}

async fn read_line<T: for<'de> Deserialize<'de>>(connection: &mut UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(connection).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}
