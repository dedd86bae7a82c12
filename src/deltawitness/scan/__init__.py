"""Read Delta tables that DataFusion's own table provider cannot read, through delta-rs."""
