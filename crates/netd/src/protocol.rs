//! The frames between the daemon and netd: a little-endian u32 length, then JSON.
//!
//! The protocol lasts for years: hello exchanges versions and features, unknown fields are skipped, an unknown verb is
//! answered with [`Reply::Unknown`] and the connection goes on. A reply bears the id of its request. Descriptors ride by
//! SCM_RIGHTS on the first byte of a request's frame, whose envelope says how many are its own.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use gantry_api::port::{Protocol, Reservation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// This side's version. It grows when a verb changes its meaning, which new verbs and fields do not.
pub const VERSION: u32 = 1;

/// What this netd can do beyond the verbs of version 1.
pub const FEATURES: &[&str] = &[
    "reserve",
    "forward-tcp",
    "forward-udp",
    "guard",
    TRANSFER,
    PORTS,
    NAMES,
    KEEPER,
];

/// The feature of taking sockets over, which a netd of an earlier version has not.
pub const PORTS: &str = "adopt-ports";

/// The feature of answering names, which a netd of an earlier version has not.
pub const NAMES: &str = "names";

/// The feature of giving ports to another owner, which a netd of an earlier version has not.
pub const TRANSFER: &str = "transfer";

/// The feature of a keeper, by which the next netd goes on with what is carried; a netd of an earlier version has none.
pub const KEEPER: &str = "keeper";

/// Longest frame in bytes: 10,000 reservations fit.
pub const FRAME_BYTES_MAX: u32 = 4 << 20;

/// A request or reply with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    pub id: u64,
    /// How many of the descriptors that arrived belong to this frame.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fds: u32,
    #[serde(flatten)]
    pub body: T,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What the daemon asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    Hello {
        version: u32,
    },
    /// Adds to what the owner holds: everything or nothing.
    Reserve {
        owner: String,
        reservations: Vec<Reservation>,
    },
    /// Adds to what `to` holds, by the sockets of `from` where they keep these ports, and gives back all else that `from`
    /// holds: everything or nothing. The ports stay taken all the while.
    Transfer {
        from: String,
        to: String,
        reservations: Vec<Reservation>,
    },
    /// Gives back all that the owner holds.
    Release {
        owner: String,
    },
    Owners,
    /// Names the sockets that keep the ports of an owner, or of all.
    Ports {
        #[serde(default)]
        owner: Option<String>,
    },
    /// Hands over sockets that keep an owner's ports, one descriptor each: the daemon holds them over netd's death, so that
    /// who connects meanwhile waits in their queues.
    AdoptPorts {
        owner: String,
        sockets: Vec<PortSocket>,
    },
    /// Takes `route_localnet` off the interfaces when the nftables table is gone. Replaces the guard before.
    Guard {
        table: String,
        interfaces: Vec<String>,
    },
    /// Replaces all names of a network: what a daemon says at its start.
    Names {
        network: String,
        endpoints: Vec<NamedEndpoint>,
    },
    /// Sets the names of one endpoint.
    PutNames {
        endpoint: NamedEndpoint,
    },
    /// Takes the names of one endpoint away.
    DropNames {
        network: String,
        endpoint: String,
    },
    /// Sets whom a container may ask for, or replaces it. Its descriptors, in this order: the UDP socket, the listener,
    /// the network namespace and, if it is known, the shim's pidfd, with whose end the sockets are closed. Without
    /// descriptors the sockets stay those of before.
    Resolver(Resolver),
    /// Hands over the descriptors of a resolver that is known already.
    Sockets {
        container: String,
    },
    DropResolver {
        container: String,
    },
    /// The containers whose sockets a restarted netd lacks.
    Resolvers,
    Status,
    /// Gives everything back and ends: the engine is being uninstalled or was a test.
    Shutdown,
}

/// A socket that keeps a host port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSocket {
    pub owner: String,
    pub protocol: Protocol,
    /// Where to what comes is carried; of no meaning when it is handed over, since the reservations say so.
    pub target: SocketAddr,
    /// Its number in netd; of no meaning when it is handed over.
    #[serde(default)]
    pub fd: i32,
}

/// The names of a container on one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedEndpoint {
    /// The network's id.
    pub network: String,
    /// The endpoint's id.
    pub endpoint: String,
    /// The container's name, aliases, short id and hostname.
    pub names: Vec<String>,
    /// The name that an address leads back to, without the network's.
    pub primary: String,
    pub addresses: Vec<IpAddr>,
}

/// Whom a container may ask for, and who is asked for what is not known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    pub container: String,
    /// In the order in which they are searched.
    pub networks: Vec<ResolverNetwork>,
    pub upstreams: Upstreams,
    /// The user has set `ndots`: names without a dot are not passed on.
    #[serde(default)]
    pub ndots_is_set: bool,
    /// Servers of the host may be asked; false where all networks are internal.
    pub forwards: bool,
}

/// A network of a container as its resolver sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverNetwork {
    pub id: String,
    pub name: String,
    /// Names that only this container knows, each with the name or endpoint id that it stands for.
    #[serde(default)]
    pub links: Vec<(String, String)>,
}

/// Who is asked for names of the world outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upstreams {
    /// The servers of the host's file, which is watched; asked from the host's network namespace.
    Host { path: PathBuf },
    /// These servers, asked from the container's network namespace.
    Container { servers: Vec<IpAddr> },
}

/// What netd answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    Hello {
        version: u32,
        features: Vec<String>,
    },
    Ok,
    Owners {
        owners: Vec<String>,
    },
    Ports {
        pid: u32,
        sockets: Vec<PortSocket>,
    },
    Resolvers {
        containers: Vec<String>,
    },
    Status(Status),
    /// The kernel refused one port, and nothing was kept.
    Refused {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        errno: i32,
    },
    Error {
        message: String,
    },
    Unknown,
}

/// Counters for the operator and for tests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub owners: usize,
    pub sockets: usize,
    /// Connections and UDP clients that are being carried now.
    pub forwards: usize,
    /// Those carried since the start.
    pub forwards_total: u64,
    /// Those refused because the limit was reached.
    pub forwards_refused: u64,
    /// Containers whose names are answered.
    #[serde(default)]
    pub resolvers: usize,
    /// Look-ups since the start.
    #[serde(default)]
    pub lookups: u64,
    /// Look-ups that wait for an upstream server.
    #[serde(default)]
    pub lookups_pending: usize,
    /// Look-ups refused because a limit was reached.
    #[serde(default)]
    pub lookups_refused: u64,
}

/// Gives the bytes of one frame.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4)
        .ok()
        .filter(|&length| length <= FRAME_BYTES_MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame too long"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Writes one frame.
pub fn write<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads one frame; a closed stream is `UnexpectedEof`.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Takes one whole frame off the front of `buffer`, if there is one.
pub fn take_frame(buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    let end = 4 + length as usize;
    if buffer.len() < end {
        return Ok(None);
    }
    let rest = buffer.split_off(end);
    let mut frame = std::mem::replace(buffer, rest);
    frame.drain(..4);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_way_there_and_back() {
        let request = Envelope {
            id: 7,
            fds: 0,
            body: Request::Reserve {
                owner: "c1".to_owned(),
                reservations: vec![Reservation {
                    protocol: Protocol::Udp,
                    address: "::".parse().unwrap(),
                    port: 53,
                    target: "172.17.0.2:53".parse().unwrap(),
                }],
            },
        };
        let mut bytes = encode(&request).unwrap();
        assert_eq!(read::<Envelope<Request>>(&mut &bytes[..]).unwrap(), request);
        let mut partial = bytes[..9].to_vec();
        assert_eq!(take_frame(&mut partial).unwrap(), None);
        bytes.extend_from_slice(b"rest");
        let frame = take_frame(&mut bytes).unwrap().unwrap();
        assert_eq!(
            serde_json::from_slice::<Envelope<Request>>(&frame).unwrap(),
            request
        );
        assert_eq!(bytes, b"rest");
    }

    #[test]
    fn a_longer_frame_than_allowed_is_refused() {
        let bytes = (FRAME_BYTES_MAX + 1).to_le_bytes().to_vec();
        assert!(read::<Envelope<Request>>(&mut &bytes[..]).is_err());
        assert!(take_frame(&mut bytes.clone()).is_err());
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let text = r#"{"id":1,"verb":"release","owner":"a","later":true}"#;
        let request: Envelope<Request> = serde_json::from_str(text).unwrap();
        assert_eq!(
            request.body,
            Request::Release {
                owner: "a".to_owned()
            }
        );
    }
}
