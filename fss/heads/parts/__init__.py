"""What heads share: the base class, attention, prototypes of shots, losses."""
