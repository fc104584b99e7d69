//! Sockets, interfaces and network namespaces: what rustix and std lack.
#![expect(
    unsafe_code,
    reason = "socket options, ancillary data, ioctls and unshare have no safe wrapper"
)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// setsockopt(2) with a value that is plain data without pointers.
fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: `value` lives until the call returns and its size is given.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

pub(crate) fn set_netlink_option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<()> {
    set_option(fd, libc::SOL_NETLINK, name, 1 as libc::c_int)
}

pub(crate) fn netlink_add_membership(fd: BorrowedFd<'_>, group: u32) -> io::Result<()> {
    set_option(fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
}

/// Moves the calling thread into a new network namespace (unshare(2), CLONE_NEWNET). Needs CAP_SYS_ADMIN.
pub fn unshare_net() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET concerns the calling thread alone and no memory.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into a network namespace (setns(2)).
pub fn setns_net(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: CLONE_NEWNET concerns the calling thread alone; the descriptor is open.
    check(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into a mount namespace of its own (unshare(2), CLONE_FS and CLONE_NEWNS).
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: both flags concern the calling thread's file system view alone and no memory.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) }).map(drop)
}

/// Brings the state of an interface up to date (ETHTOOL_GLINK) and says whether it has a carrier.
///
/// After both ends of a veth are up the kernel tells the bridge so from a work queue; until then the port drops frames
/// and a container that starts quickly loses its first packet, and a second with it. This call runs that work at once.
pub fn ethtool_glink(socket: BorrowedFd<'_>, interface: &str) -> io::Result<bool> {
    const ETHTOOL_GLINK: u32 = 0x0a;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value {
        command: ETHTOOL_GLINK,
        data: 0,
    };
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, &from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request points at `value`, which outlives the call and has the layout of struct ethtool_value.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })?;
    Ok(value.data != 0)
}

/// Opens a socket for sending Ethernet frames that receives none (packet(7) with protocol 0).
pub fn packet_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one Ethernet frame out of an interface.
pub fn send_frame(socket: BorrowedFd<'_>, interface: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = interface.cast_signed();
    address.sll_halen = 6;
    // SAFETY: frame and address live until the call returns and their sizes are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The kind of a host-port socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// Opens a non-blocking socket of the address's family. `dual` lets an IPv6 socket serve IPv4 as well.
pub fn socket(address: IpAddr, transport: Transport, dual: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let (kind, protocol) = match transport {
        Transport::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Transport::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        Transport::Sctp => (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    };
    // SAFETY: takes numbers and gives a new descriptor.
    let fd = check(unsafe {
        libc::socket(
            family,
            kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            protocol,
        )
    })?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.is_ipv6() {
        set_option(
            fd.as_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_V6ONLY,
            libc::c_int::from(!dual),
        )?;
    }
    Ok(fd)
}

/// Sets SO_REUSEADDR.
pub fn set_reuse_address(fd: BorrowedFd<'_>, reuse: bool) -> io::Result<()> {
    set_option(
        fd,
        libc::SOL_SOCKET,
        libc::SO_REUSEADDR,
        libc::c_int::from(reuse),
    )
}

/// Asks for the local address of each datagram (IP_PKTINFO, IPV6_RECVPKTINFO), so that answers leave from it.
pub fn set_packet_info(fd: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_option(
            fd,
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            1 as libc::c_int,
        )
    } else {
        set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1 as libc::c_int)
    }
}

/// Makes closing send a reset (SO_LINGER of zero).
pub fn set_abort_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
pub(crate) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

pub(crate) fn raw_address(address: SocketAddr) -> (RawAddress, libc::socklen_t) {
    match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*address.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            (
                RawAddress { v4 },
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            )
        }
        SocketAddr::V6(address) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            (
                RawAddress { v6 },
                size_of::<libc::sockaddr_in6>() as libc::socklen_t,
            )
        }
    }
}

pub(crate) fn socket_address(raw: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let address: *const libc::sockaddr_storage = raw;
    match libc::c_int::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is large and aligned enough, and its family says what it holds.
            let v4 = unsafe { &*address.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the storage is large and aligned enough, and its family says what it holds.
            let v6 = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(
                SocketAddrV6::new(
                    ip,
                    u16::from_be(v6.sin6_port),
                    v6.sin6_flowinfo,
                    v6.sin6_scope_id,
                )
                .into(),
            )
        }
        _ => None,
    }
}

/// bind(2)
pub fn bind(fd: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    let (raw, length) = raw_address(address);
    // SAFETY: the address lives until the call returns and `length` is the size of its family's structure.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), length) }).map(drop)
}

/// listen(2)
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: takes numbers alone.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// connect(2); a non-blocking socket that is on its way is no error.
pub fn connect(fd: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    let (raw, length) = raw_address(address);
    // SAFETY: the address lives until the call returns and `length` is the size of its family's structure.
    match check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const raw).cast(), length) }) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        result => result.map(drop),
    }
}

/// accept4(2): non-blocking and close-on-exec.
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: null pointers tell that the peer's address is not wanted.
    let fd = check(unsafe {
        libc::accept4(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the pending error of a socket (SO_ERROR).
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    let mut value: libc::c_int = 0;
    get_option(fd, libc::SOL_SOCKET, libc::SO_ERROR, &mut value)?;
    Ok((value != 0).then(|| io::Error::from_raw_os_error(value)))
}

/// getsockopt(2) of a value that is plain data without pointers; gives how many bytes of it the kernel wrote.
fn get_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut T,
) -> io::Result<usize> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: value and length live until the call returns; the length is the value's size.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut *value).cast(),
            &raw mut length,
        )
    })?;
    Ok(length as usize)
}

/// Where a TCP socket is in its life, as far as its owner has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpState {
    /// On its way (`TCP_SYN_SENT`, `TCP_SYN_RECV`).
    Connecting,
    /// Nothing begun, or nothing left (`TCP_CLOSE`).
    Closed,
    /// Anything else.
    Connected,
}

/// Tells the state of a TCP socket (TCP_INFO, tcp(7)).
pub fn tcp_state(fd: BorrowedFd<'_>) -> io::Result<TcpState> {
    const TCP_SYN_SENT: u8 = 2;
    const TCP_SYN_RECV: u8 = 3;
    const TCP_CLOSE: u8 = 7;
    // The state is the first byte of struct tcp_info, and the kernel writes as much as there is room for.
    let mut state = 0u8;
    get_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut state)?;
    Ok(match state {
        TCP_SYN_SENT | TCP_SYN_RECV => TcpState::Connecting,
        TCP_CLOSE => TcpState::Closed,
        _ => TcpState::Connected,
    })
}

/// Gives the number of a socket's network namespace, which is never another's (SO_NETNS_COOKIE).
///
/// # Errors
/// `ENOPROTOOPT` before Linux 5.14, `ENOTSOCK`.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0u64;
    get_option(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie)?;
    Ok(cookie)
}

/// Says whether the next byte of a TCP stream is urgent data (SIOCATMARK, tcp(7)), which splice(2) stops at.
pub fn is_at_mark(fd: BorrowedFd<'_>) -> io::Result<bool> {
    const SIOCATMARK: libc::Ioctl = 0x8905;
    let mut answer: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCATMARK, &raw mut answer) })?;
    Ok(answer != 0)
}

/// Ancillary data, aligned as the kernel's `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Receives a datagram, who sent it and the local address it was sent to.
pub fn receive_datagram(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    // SAFETY: all-zero bytes are valid for both.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: all that the header points at lives until the call returns, with the sizes given.
    let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let sender =
        socket_address(&name).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut local = None;
    // SAFETY: the header was filled by recvmsg and its control buffer still lives.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give whole headers within the control buffer.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        // SAFETY: as above; the data follows the header.
        let data = unsafe { libc::CMSG_DATA(message) };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel puts an in_pktinfo there, perhaps unaligned.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                local = Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel puts an in6_pktinfo there, perhaps unaligned.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            _ => {}
        }
        // SAFETY: header and message are those of this loop.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok((length, sender, local))
}

/// Sends a datagram, from `local` where given, which must be of the socket's family.
pub fn send_datagram(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    to: SocketAddr,
    local: Option<IpAddr>,
) -> io::Result<()> {
    let (mut raw, length) = raw_address(to);
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut raw).cast();
    header.msg_namelen = length;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if let Some(local) = local {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len();
        // SAFETY: the control buffer holds one header with either structure (CMSG_SPACE of 20 bytes is below 64), is
        // aligned, and is written within its bounds.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            match local {
                IpAddr::V4(address) => {
                    let info = libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr {
                            s_addr: u32::from(address).to_be(),
                        },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    };
                    (*message).cmsg_level = libc::IPPROTO_IP;
                    (*message).cmsg_type = libc::IP_PKTINFO;
                    (*message).cmsg_len = libc::CMSG_LEN(size_of_val(&info) as u32) as usize;
                    libc::CMSG_DATA(message)
                        .cast::<libc::in_pktinfo>()
                        .write_unaligned(info);
                    header.msg_controllen = libc::CMSG_SPACE(size_of_val(&info) as u32) as usize;
                }
                IpAddr::V6(address) => {
                    let info = libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr {
                            s6_addr: address.octets(),
                        },
                        ipi6_ifindex: 0,
                    };
                    (*message).cmsg_level = libc::IPPROTO_IPV6;
                    (*message).cmsg_type = libc::IPV6_PKTINFO;
                    (*message).cmsg_len = libc::CMSG_LEN(size_of_val(&info) as u32) as usize;
                    libc::CMSG_DATA(message)
                        .cast::<libc::in6_pktinfo>()
                        .write_unaligned(info);
                    header.msg_controllen = libc::CMSG_SPACE(size_of_val(&info) as u32) as usize;
                }
            }
        }
    }
    // SAFETY: all that the header points at lives until the call returns, with the sizes given; nothing is written.
    let sent = unsafe {
        libc::sendmsg(
            fd.as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
