//! HTTP routes, versions, streams: the composition root
