//! The one place with unsafe code: a network device's flags have no safe interface but netlink, which is another
//! crate's business; and tokio trusts whoever hands it a descriptor to watch.
#![allow(unsafe_code)]

use nix::libc;
use nix::sys::inotify::{Inotify, InotifyEvent};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use tokio::io::unix::AsyncFd;

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

/// An inotify instance that tokio waits on.
pub(crate) struct Watch(Inotify);

impl Watch {
    pub(crate) fn read_events(&self) -> nix::Result<Vec<InotifyEvent>> {
        self.0.read_events()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Hands an inotify instance to tokio.
pub(crate) fn watch(inotify: Inotify) -> io::Result<AsyncFd<Watch>> {
    // SAFETY: the instance owns its descriptor, always answers the same one, and cannot be closed or replaced while the
    // `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register(Watch(inotify)) }?)
}
