//! The one place with unsafe code: a network device's flags have no safe interface but netlink, which is another
//! crate's business.
#![allow(unsafe_code)]

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::AsRawFd;

nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);

/// Brings `lo` up in the calling thread's network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: `ifreq` is plain old data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from).unwrap_or_default();
    }
    // SAFETY: the socket is open, the request is a valid `ifreq` with a terminated name, and reading the flags fills
    // in the union member that is then read and written.
    unsafe {
        get_flags(socket.as_raw_fd(), &mut request)?;
        request.ifr_ifru.ifru_flags |= libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
        set_flags(socket.as_raw_fd(), &request)?;
    }
    Ok(())
}
