"""One file an op: the public function, its schema, its shapes and its autograd."""
