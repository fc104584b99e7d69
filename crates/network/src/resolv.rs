//! The text of a container's /etc/resolv.conf and /etc/hosts. Pure: nobody reads or writes a file here.
