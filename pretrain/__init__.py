"""What learns: the trainer that reads the shards which `lvd run` writes."""
