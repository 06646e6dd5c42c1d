package registry

// SetChunk makes chunks so small that tests need no large blobs.
func (s *Sink) SetChunk(bytes int64) { s.chunk = bytes }
